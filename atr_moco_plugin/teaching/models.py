"""A training run or a bundle as a teacher: the training split is embedded once and saved.

Clips are embedded whole, a long one in the windows of its bundle, so that the embeddings are the
same each time, where training draws a part of a long clip anew in each epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atr_moco_plugin.criterion.teachers import RowsById
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.evaluation_audio import map_ahead
from atr_moco_plugin.embedding_cache.build import Ranks
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.trained_clips import clips_of_source, warn_of_known
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.exported import ExportOptions
from atr_moco_plugin.retriever.runs import export_run, made_by
from atr_moco_plugin.search.embeddings_file import Embeddings, Rows, write_embeddings
from atr_moco_plugin.teaching.processes import group_ranks

_CLIPS_FILE = "evaluation_clips.json"
_CLIPS = 64
"""That are embedded at once."""

Waveform = tuple[NDArray[np.float32], int]


class Split(NamedTuple):
    """What a teacher embeds, and how.

    Attributes:
        dataset: what is trained on.
        name: of its training split.
        batch_size: windows or sentences at once.
        num_workers: threads that decode audio ahead.
        device: where the teacher computes.
    """

    dataset: AudioTextDataset
    name: str
    batch_size: int
    num_workers: int
    device: torch.device


def embed_where_missing(
    source: Path, file: Path, split: Split, say: Callable[[str], object]
) -> None:
    """:func:`embed_split` of all processes, unless the file is there: a run that goes on learns
    from what it began with, also where its teacher has been trained on or removed since.

    Args:
        source: folder of a training run of any host, of a bundle, or of a ``ClapModel``.
        file: a ``.safetensors``; parts of it lie beside it until it is there.
        split: what is embedded.
        say: told what is done.
    """
    data = split.dataset.fingerprint()
    about = {"teacher": str(source.resolve()), "data": data, "split": split.name}
    ranks = group_ranks(split.device)
    if ranks.from_first(lambda: _is_of(file, about)):
        say(
            f"{file} has what the teacher {source} embedded before, and is taken; remove it for a "
            "new run if the teacher has been trained on since."
        )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    embed_split(source, file, split, about, ranks, say)


def _is_of(file: Path, about: dict[str, Any]) -> bool:
    """Whether a file is there and says of itself what is asked."""
    try:
        with safe_open(file, "pt") as content:
            found = json.loads((content.metadata() or {}).get("about", "{}"))
    except (SafetensorError, OSError, ValueError):
        return False
    return isinstance(found, dict) and about.items() <= found.items()


def embed_split(
    source: Path,
    file: Path,
    split: Split,
    about: dict[str, Any],
    ranks: Ranks,
    say: Callable[[str], object],
) -> None:
    """Embed a training split with a run or a bundle, and write it as ``embed`` does. All processes
    call it: each embeds its share, and the first writes the file.

    Args:
        source: folder of a training run of any host, of a bundle, or of a ``ClapModel``. Where that
            run says on which clips it was trained, those of other splits are warned of.
        file: a ``.safetensors`` in a folder of the output folder; parts of it lie beside it until
            it is there.
        split: what is embedded.
        about: what the file says of itself.
        ranks: the processes.
        say: told what is done.

    Raises:
        InputError: on every process, where the model cannot be read, was trained on other data,
            or can embed no clip.
    """
    clips = split.dataset.clips(split.name)
    say(
        f"Embedding the {len(clips):,} clips of the split {split.name!r} and their captions with "
        f"the teacher {source}, once; {file} keeps them."
    )
    part = file.with_name(f".{file.stem}.{ranks.index}of{ranks.count}{file.suffix}")
    problem = None
    try:
        known = clips_of_source(source, file.parent.parent)
        if known is not None and ranks.index == 0:
            for held_out in (x for x in split.dataset.splits if x != split.name):
                warn_of_known(known, split.dataset, held_out, f"the teacher {source}")
        if not _says_its_data(source, split.dataset) and known is None:
            say(
                f"The teacher {source} does not say on which data it was trained: make sure that "
                "clips which are held out here were not among them."
            )
        with _loaded(source, split) as retriever:
            _write_part(part, retriever, split, ranks)
    except (InputError, OSError) as ex:
        problem = str(ex)
    ranks.agree(problem)
    parts = [part.with_name(part.name.replace(f".{ranks.index}of", f".{i}of"))
             for i in range(ranks.count)]  # fmt: skip
    ranks.from_first(lambda: _put_together(file, parts, about))


def _says_its_data(source: Path, dataset: AudioTextDataset) -> bool:
    """Whether a run says what it was trained on, as no bundle does; refuses one of other data."""
    run = next((x for x in (source, *source.parents[:2]) if (x / _CLIPS_FILE).is_file()), None)
    if run is None:
        return False
    try:
        made_with = json.loads((run / _CLIPS_FILE).read_text(encoding="utf-8"))["made_with"]
        data = made_with["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if data != dataset.fingerprint():
        raise InputError(
            f"The teacher {source} was trained on other data than {dataset.name} as it is here "
            "(other clips, captions, splits or sounds), so that it may know what is held out: "
            "train it on this data, or name a bundle of it, made by `atr-moco export`."
        )
    return True


@contextmanager
def _loaded(source: Path, split: Split) -> Iterator[AudioTextRetriever]:
    load = partial(
        AudioTextRetriever.from_pretrained, device=split.device, batch_size=split.batch_size
    )
    maker = made_by(source)
    if maker is None:
        yield load(source)
        return
    with TemporaryDirectory(prefix="atr-moco-") as folder:
        bundle = Path(folder) / "bundle"
        export_run(source, maker, ExportOptions()).write(bundle)
        yield load(bundle)


def _write_part(file: Path, retriever: AudioTextRetriever, split: Split, ranks: Ranks) -> None:
    """Embed the share of a process: each clip, and each wording of each caption id, is in the share
    of one process alone, so that the means by ids do not depend on how many there are."""
    dataset = split.dataset
    every = dataset.clips(split.name)
    wordings = dict.fromkeys(
        pair for clip in every for pair in zip(clip.caption_ids, clip.captions, strict=True)
    )
    clips = every[ranks.index :: ranks.count]
    texts = list(wordings)[ranks.index :: ranks.count]
    sentences = [text for _, text in texts]
    of_text = retriever.embed_text(sentences)
    kept, bad, of_audio = [], {}, [torch.zeros(0, retriever.embed_dim)]
    decoded = map_ahead(
        _reader(dataset, retriever.sample_rate), clips, split.num_workers, ahead=_CLIPS
    )
    for start in range(0, len(clips), _CLIPS):
        some = clips[start : start + _CLIPS]
        for clip, found in _embedded(retriever, some, [next(decoded) for _ in some]):
            if isinstance(found, Tensor):
                kept.append(clip)
                of_audio.append(found[None])
            else:
                bad[clip.key] = found
    ids = np.array([dataset.clip_id(clip) for clip in kept], np.int64)
    rows = {
        "audio": Rows(torch.cat(of_audio).numpy(), [clip.key for clip in kept], ids),
        "text": Rows(
            of_text.numpy(), sentences, np.array([number for number, _ in texts], np.int64)
        ),
    }
    write_embeddings(file, Embeddings(rows, {"unreadable": bad}))


def _reader(dataset: AudioTextDataset, rate: int) -> Callable[[Clip], Waveform | str]:
    """What reads a whole clip at a teacher's rate, or says why it cannot be read."""
    own = dataset.reader
    reader = AudioReader(rate, own.decoder)

    def read(clip: Clip) -> Waveform | str:
        try:
            if dataset.read is None:
                return reader(clip.source), rate
            return dataset.read(clip), dataset.read_rate
        except (OSError, InputError) as ex:
            return str(ex)

    return read


def _embedded(
    retriever: AudioTextRetriever, clips: Sequence[Clip], decoded: Sequence[Waveform | str]
) -> Iterator[tuple[Clip, Tensor | str]]:
    """The embedding ``[d]`` of each clip, or why it has none."""
    whole = [x for x in decoded if not isinstance(x, str)]
    try:
        rows: list[Tensor | str] = list(retriever.embed_audio(whole)) if whole else []
    except InputError:  # one of them is too short, for example
        rows = [_alone(retriever, x) for x in whole]
    found = iter(rows)
    for clip, x in zip(clips, decoded, strict=True):
        yield clip, x if isinstance(x, str) else next(found)


def _alone(retriever: AudioTextRetriever, waveform: Waveform) -> Tensor | str:
    try:
        return retriever.embed_audio([waveform])[0]
    except InputError as ex:
        return str(ex)


def _put_together(file: Path, parts: Sequence[Path], about: dict[str, Any]) -> None:
    """Write the parts of all processes as one file, a row for each id, and remove them: once it
    returns, no process finds a part beside the file."""
    read = []
    for part in parts:
        with safe_open(part, "pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}
            read.append((tensors, content.metadata()))
    unreadable = {
        key: why
        for _, metadata in read
        for key, why in json.loads(metadata["about"])["unreadable"].items()
    }
    rows = {}
    for kind, ids, names in (("audio", "clip_ids", "paths"), ("text", "caption_ids", "sentences")):
        table = RowsById(*(torch.cat([x[name] for x, _ in read]) for name in (ids, kind)))
        named = {
            number: name
            for tensors, metadata in reversed(read)
            for number, name in zip(tensors[ids].tolist(), json.loads(metadata[names]), strict=True)
        }
        own = [named[number] for number in table.ids.tolist()]
        rows[kind] = Rows(table.find(table.ids).numpy(), own, table.ids.numpy())
    if not len(rows["audio"].ids):
        key, why = next(iter(unreadable.items()))
        raise InputError(
            f"The teacher {about['teacher']} can embed no clip, such as {key!r}: {why}."
        )
    write_embeddings(file, Embeddings(rows, {**about, "unreadable": unreadable}))
    for part in parts:
        part.unlink()
