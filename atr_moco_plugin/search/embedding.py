"""Sounds to embeddings: batches over recordings, so that short ones fill them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import DeviceError, InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.plan import Task
from atr_moco_plugin.search.reading import Again, End, Item, ReadAhead
from atr_moco_plugin.search.store import Embedded

Waveform: TypeAlias = NDArray[np.float32]


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
        task: the task.
        embedded: what to put into the index; None where there is nothing to put.
        same_but_newer: the new time of a recording whose content is what the index has; else None.
        problem: why it cannot be read, now or at all; else empty.
    """

    task: Task
    embedded: Embedded | None = None
    same_but_newer: int | None = None
    problem: str = ""


class _Sound:
    """A sound whose windows are being embedded."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.end: End | None = None
        self.clear()

    def clear(self) -> None:
        """Forget its windows."""
        self.spans: list[tuple[float, float]] = []
        self.rows: list[Waveform] = []
        self.turn = object()  # windows on their way to the model belong to another turn
        self.problem = ""

    def outcome(self, embed_dim: int) -> Outcome | None:
        """What became of it; None while windows are missing."""
        end = self.end
        if end is None:
            return None
        if end.recording is None:
            return Outcome(self.task, problem=end.problem)
        if end.same:
            problem = self.task.problem
            return Outcome(self.task, same_but_newer=end.recording.mtime_ns, problem=problem)
        problem = end.problem or self.problem
        if not problem and len(self.rows) < len(self.spans):
            return None
        if problem:
            self.spans, self.rows = [], []
        recording = replace(
            end.recording,
            seconds=max((span[1] for span in self.spans), default=0.0),
            problem=problem,
        )
        rows = np.stack(self.rows) if self.rows else np.zeros((0, embed_dim), np.float32)
        spans = np.array(self.spans, np.float64).reshape(-1, 2)
        return Outcome(self.task, Embedded(recording, spans, rows), problem=problem)


_Window: TypeAlias = tuple[_Sound, object, Waveform]
"""With the turn of its sound in which it was read."""


def embed_groups(
    groups: Iterable[Sequence[Task]],
    retriever: AudioTextRetriever,
    *,
    threads: int,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda windows: None,
    proven: bool = False,
) -> Generator[list[Outcome], None, None]:
    """Embed groups of sounds, see :func:`~.plan.in_groups`.

    Args:
        groups: of tasks.
        retriever: embeds.
        threads: that decode.
        stop: asked before each batch; where it says so, what is embedded so far is the last group.
        progress: told how many windows have been embedded.
        proven: whether the model has embedded other sounds before.

    Yields:
        Of each group the outcomes, in the order of its tasks. They wait for a later group where the
        first sounds have no embedding, until it is known whose fault that is.

    Raises:
        DeviceError: if the device cannot compute a batch of one.
        InputError: if no sound has an embedding, of two or more.
    """
    groups = list(groups)
    # As many as sort well by length, without holding much.
    most = max(retriever.batch_size, min(2 * retriever.batch_size, 64))
    streams = ReadAhead(retriever.windows, threads, most)(
        task for group in groups for task in group
    )
    embedder = _Embedder(retriever, progress, proven)
    held: list[Outcome] = []
    try:
        for group in groups:
            sounds: list[_Sound] = []
            waiting: list[_Window] = []
            for sound, item in _items(group, streams, sounds):
                if isinstance(item, End):
                    sound.end = item
                elif isinstance(item, Again):
                    sound.clear()
                else:
                    sound.spans.append((item.start, item.end))
                    waiting.append((sound, sound.turn, item.waveform))
                if len(waiting) == most:
                    embedder.embed(waiting)
                    if stop():
                        break
            embedder.embed(waiting)
            outcomes = (sound.outcome(retriever.embed_dim) for sound in sounds)
            held += [outcome for outcome in outcomes if outcome is not None]
            ready = embedder.may_judge or group is groups[-1]
            yield held if ready else []
            held = [] if ready else held
            if stop():
                return
    finally:
        streams.close()


def _items(
    group: Sequence[Task],
    streams: Iterator[tuple[Task, Iterator[Item]]],
    sounds: list[_Sound],
) -> Iterator[tuple[_Sound, Item]]:
    for _ in group:
        task, items = next(streams)
        sound = _Sound(task)
        sounds.append(sound)
        for item in items:
            yield sound, item


class _Embedder:
    """Embeds windows, and tells a sound that has no embedding from a model that gives none."""

    def __init__(
        self, retriever: AudioTextRetriever, progress: Callable[[int], None], proven: bool
    ) -> None:
        self._retriever = retriever
        self._progress = progress
        self._good = proven  # whether any window has been embedded
        self._bad: dict[str, InputError] = {}

    @property
    def may_judge(self) -> bool:
        """Whether it is known whose fault the sounds without an embedding are, if there are any."""
        return self._good or not self._bad

    def embed(self, waiting: list[_Window]) -> None:
        """Embed what waits, and empty it.

        Raises:
            DeviceError: if the device cannot compute a batch of one either.
            InputError: if two sounds have no embedding and no other one has, since that is no fault
                of the sounds.
        """
        # Of a sound that has a problem already, nothing is kept.
        waiting[:] = [(x, turn, w) for x, turn, w in waiting if x.turn is turn and not x.problem]
        if not waiting:
            return
        try:
            rows = self._retriever.embed_windows([waveform for _, _, waveform in waiting])
        except InputError:
            self._embed_alone(waiting)
        else:
            for (sound, _, _), row in zip(waiting, rows, strict=True):
                sound.rows.append(row)
            self._good = True
        self._progress(len(waiting))
        waiting.clear()

    def _embed_alone(self, waiting: Sequence[_Window]) -> None:
        for sound, _, waveform in waiting:
            if sound.problem:
                continue
            try:
                sound.rows.append(self._retriever.embed_windows([waveform])[0])
                self._good = True
            except DeviceError:
                raise
            except InputError as ex:
                sound.problem = "cannot be embedded: " + " ".join(str(ex).split())
                self._bad[sound.task.found.name] = ex
        if len(self._bad) > 1 and not self._good:
            name, error = next(iter(self._bad.items()))
            raise InputError(
                f"{len(self._bad)} sounds, such as {name}, cannot be embedded, and none before or "
                f"beside them can: {error}"
            ) from error
