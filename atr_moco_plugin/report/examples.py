"""The best and the worst retrievals of a model, with sound, and a sample of its similarities."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dacite
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.data.audio.read import fit_length
from atr_moco_plugin.data.dataset import Clip, RetrievalSet
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.report.sound import sound_uri

Load = Callable[[Clip], NDArray[np.float32]]

EXAMPLES_FILE = "report/examples.json"


@dataclass(frozen=True)
class Sound:
    """A clip that can be played.

    Attributes:
        key: the clip's key.
        label: its class, where there are classes.
        captions: its captions.
        uri: its audio as a ``data:`` address; ``None`` when it could not be read.
        note: what to know of the audio: that it was cut, or why there is none.
    """

    key: str
    label: str | None
    captions: tuple[str, ...]
    uri: str | None
    note: str | None


@dataclass(frozen=True)
class Found:
    """One result of a query.

    Attributes:
        item: index into :attr:`Examples.sounds` or :attr:`Examples.captions`.
        place: 1 is the first result.
        score: the similarity.
        relevant: whether it counts as a hit.
    """

    item: int
    place: int
    score: float
    relevant: bool


@dataclass(frozen=True)
class Retrieval:
    """One query and what was found.

    Attributes:
        query: index into :attr:`Examples.captions` (text to audio) or :attr:`Examples.sounds`.
        rank: of the best relevant item, ties counted against it.
        candidates: how many items were ranked.
        margin: score of the best relevant item minus that of the best one that is not.
        found: the first results, and the best relevant item where it is not among them.
    """

    query: int
    rank: int
    candidates: int
    margin: float
    found: tuple[Found, ...]


@dataclass(frozen=True)
class Direction:
    """The best and the worst retrievals of one direction, the most extreme first."""

    best: tuple[Retrieval, ...]
    worst: tuple[Retrieval, ...]


@dataclass(frozen=True)
class Matrix:
    """Similarities of a sample: R clips (keys) by K captions, clips of one label side by side.

    Attributes:
        rows: R clip keys.
        columns: K captions, one of each clip; a caption that is several clips' occurs once.
        values: R rows of K similarities.
        relevant: R rows of K truth values.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    relevant: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Examples:
    """What a report shows of a model's retrieval on one split.

    Attributes:
        split: the split's name.
        clips: how many clips it has.
        sounds: the clips that occur below.
        captions: the captions that occur below.
        text_to_audio: captions as queries.
        audio_to_text: clips as queries.
        matrix: a sample of the similarities.
    """

    split: str
    clips: int
    sounds: tuple[Sound, ...]
    captions: tuple[str, ...]
    text_to_audio: Direction
    audio_to_text: Direction
    matrix: Matrix

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Examples:
        """The reverse of :meth:`to_dict`.

        Raises:
            ValueError: when something is missing or of another type.
        """
        try:
            examples = dacite.from_dict(cls, values, dacite.Config(cast=[tuple, float]))
        except (dacite.DaciteError, TypeError) as ex:
            raise InputError(f"not the examples of a report: {ex}") from ex
        for sound in examples.sounds:
            if sound.uri is not None and not sound.uri.startswith("data:audio/"):
                raise InputError(f"the sound of clip {sound.key!r} is no data: address of audio")
        return examples

    def save(self, run_folder: Path) -> Path:
        """Write ``report/examples.json`` of a run, from which its page can be built again."""
        path = Path(run_folder) / EXAMPLES_FILE
        write_atomically(path, json.dumps(self.to_dict()) + "\n")
        return path


@torch.no_grad()
def collect_examples(
    similarity: Tensor,
    retrieval_set: RetrievalSet,
    load: Load,
    sample_rate: int,
    *,
    split: str = "valid",
    per_side: int = 4,
    matrix_size: int = 40,
    top: int = 3,
    max_seconds: float = 10.0,
    seed: int = 0,
) -> Examples:
    """Choose what a report shows. The same arguments always give the same examples.

    A query is the better the lower the rank of its best relevant item (ties count against it, as
    in the metrics), then the larger the margin to the best item that is not relevant, then the
    earlier it stands in the split; the worst are at the other end of that order. For the sake of
    variety only the most extreme one is taken of the captions of one clip (where a caption has
    several clips: of those with one caption id) and of the clips with one label, and no such group
    is among the best and the worst.

    Args:
        similarity: ``[A, C]``, clips by captions, larger is closer.
        retrieval_set: of the same A clips and C captions.
        load: a clip to its waveform, ``[samples]`` float32. A clip that it cannot read
            (``OSError``, ``ValueError``, ``RuntimeError``) is shown without sound.
        sample_rate: of those waveforms, in Hz.
        split: the split's name.
        per_side: best retrievals of each direction, and worst ones.
        matrix_size: clips in the sample of similarities.
        top: results shown of each query.
        max_seconds: longer clips are cut to their beginning.
        seed: of the sample.

    Raises:
        ValueError: when the shapes differ or a similarity is not finite.
    """
    relevant = retrieval_set.relevance.cpu()
    scores = similarity.detach().cpu().double()
    if scores.shape != relevant.shape:
        raise InputError(
            f"similarity {list(scores.shape)} and relevance {list(relevant.shape)} must have the "
            "same shape [A, C], clips by captions."
        )
    if not bool(scores.isfinite().all()):
        raise InputError("similarity has values that are not finite; check the embeddings.")
    owner = retrieval_set.caption_to_audio
    caption_groups: list[Hashable] = (
        retrieval_set.caption_ids if owner is None else owner
    ).tolist()
    clip_groups: list[Hashable] = [
        (clip.label is None, clip.label or clip.key) for clip in retrieval_set.clips
    ]
    text_to_audio = _direction(scores.T, relevant.T, caption_groups, per_side, top)
    audio_to_text = _direction(scores, relevant, clip_groups, per_side, top)

    # From here on, indices into what the page shows instead of into the split.
    sounds = _Shown()
    captions = _Shown()
    shown = {
        "text_to_audio": _renumber(text_to_audio, captions, sounds),
        "audio_to_text": _renumber(audio_to_text, sounds, captions),
    }
    return Examples(
        split=split,
        clips=len(retrieval_set.clips),
        sounds=tuple(
            _sound(retrieval_set.clips[i], load, sample_rate, max_seconds) for i in sounds.items
        ),
        captions=tuple(retrieval_set.captions[i] for i in captions.items),
        matrix=_matrix(scores, relevant, retrieval_set, matrix_size, seed),
        **shown,
    )


def _direction(
    scores: Tensor, relevant: Tensor, groups: Sequence[Hashable], per_side: int, top: int
) -> Direction:
    """Rows ``[Q, N]`` are queries."""
    inf = float("inf")
    good = scores.masked_fill(~relevant, -inf).amax(dim=1)
    bad = scores.masked_fill(relevant, -inf).amax(dim=1)
    rank = 1 + ((scores >= good[:, None]) & ~relevant).sum(dim=1)
    margin = good - bad
    # Without a hit, or with nothing but hits, there is nothing to get right or wrong.
    askable = (relevant.any(dim=1) & ~relevant.all(dim=1)).nonzero().flatten().tolist()
    order = sorted(askable, key=lambda q: (int(rank[q]), -float(margin[q]), q))
    best = _distinct(order, groups, per_side)
    taken = {groups[q] for q in best}
    worst = _distinct([q for q in reversed(order) if groups[q] not in taken], groups, per_side)

    def retrieval(q: int) -> Retrieval:
        return Retrieval(
            query=q,
            rank=int(rank[q]),
            candidates=scores.size(1),
            margin=round(float(margin[q]), 4),
            found=_found(scores[q], relevant[q], top),
        )

    return Direction(tuple(map(retrieval, best)), tuple(map(retrieval, worst)))


def _distinct(order: Sequence[int], groups: Sequence[Hashable], count: int) -> list[int]:
    """The first of each group, ``count`` groups at most."""
    chosen: dict[Hashable, int] = {}
    for query in order:
        chosen.setdefault(groups[query], query)
    return list(chosen.values())[:count]


def _found(scores: Tensor, relevant: Tensor, top: int) -> tuple[Found, ...]:
    """The first results and the best relevant one; of equal scores, the irrelevant come first."""
    # Sorted by the second criterion first: the sorts are stable.
    order = relevant.byte().argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    places = set(range(min(top, len(order))))
    places.add(int(relevant[order].nonzero()[0]))
    return tuple(
        Found(
            item=int(order[place]),
            place=place + 1,
            score=round(float(scores[order[place]]), 4),
            relevant=bool(relevant[order[place]]),
        )
        for place in sorted(places)
    )


class _Shown:
    """Numbers items in the order in which they are first asked for."""

    def __init__(self) -> None:
        self.items: dict[int, int] = {}

    def __call__(self, item: int) -> int:
        return self.items.setdefault(item, len(self.items))


def _renumber(direction: Direction, queries: _Shown, items: _Shown) -> Direction:
    def side(retrievals: tuple[Retrieval, ...]) -> tuple[Retrieval, ...]:
        return tuple(
            Retrieval(
                query=queries(r.query),
                rank=r.rank,
                candidates=r.candidates,
                margin=r.margin,
                found=tuple(Found(items(f.item), f.place, f.score, f.relevant) for f in r.found),
            )
            for r in retrievals
        )

    return Direction(side(direction.best), side(direction.worst))


def _sound(clip: Clip, load: Load, sample_rate: int, max_seconds: float) -> Sound:
    uri = note = None
    try:
        waveform = load(clip)
        kept = fit_length(waveform, round(max_seconds * sample_rate))
        uri = sound_uri(kept, sample_rate)
        if len(kept) < len(waveform):
            note = f"the first {max_seconds:g} s of {len(waveform) / sample_rate:.1f} s"
    except (OSError, InputError, soundfile.SoundFileError) as ex:
        note = f"no sound: {' '.join(str(ex).split())}"
    return Sound(clip.key, clip.label, clip.captions, uri, note)


def _matrix(
    scores: Tensor, relevant: Tensor, retrieval_set: RetrievalSet, size: int, seed: int
) -> Matrix:
    with_caption = relevant.any(dim=1).nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    drawn = with_caption[torch.randperm(len(with_caption), generator=generator)[:size]].tolist()
    rows = sorted(drawn, key=lambda a: (retrieval_set.clips[a].label or "", a))
    columns = list(dict.fromkeys(int(relevant[a].nonzero()[0]) for a in rows))
    values = scores[rows][:, columns].tolist()
    return Matrix(
        rows=tuple(retrieval_set.clips[a].key for a in rows),
        columns=tuple(retrieval_set.captions[c] for c in columns),
        values=tuple(tuple(round(value, 4) for value in row) for row in values),
        relevant=tuple(map(tuple, relevant[rows][:, columns].tolist())),
    )
