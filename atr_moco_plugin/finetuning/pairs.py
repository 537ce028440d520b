"""Pairs of sounds and captions from Python as a data set with splits."""

from __future__ import annotations

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from atr_moco_plugin.data.audio.source import FileSlice, MemoryFile, Segment, Source
from atr_moco_plugin.data.audio.waveform import as_source, as_waveform
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.duplicates import equal_sources, same_files
from atr_moco_plugin.data.opening.splitting import draw_splits
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.finetuning.config import CommonSection
from atr_moco_plugin.finetuning.pair_rows import read_pair
from atr_moco_plugin.ids import normalize_caption

LEAST = 10
"""Sounds that there must be: fewer cannot be told apart in three splits."""


def open_pairs(
    pairs: Iterable[Any],
    *,
    valid: Iterable[Any] | None = None,
    test: Iterable[Any] | None = None,
    seed: int = CommonSection.seed,
) -> AudioTextDataset:
    """Make a data set of pairs; equal sounds become one clip with all their captions.

    For example ``open_pairs([("dog.wav", "a dog barks"), ("rain.wav", ["rain", "it pours"])])``.

    Args:
        pairs: of a sound and its caption, or several captions: tuples, or mappings with ``audio``
            and ``caption`` (or another name of captions files, numbered ones too, or ``sentence``),
            such as the rows of Hugging Face's ``datasets``. A sound is a path, the bytes of a file,
            ``{"array", "sampling_rate"}``, ``{"bytes", "path"}``, a pair of an array and its rate,
            or a decoder.
        valid: pairs to choose the best checkpoint on; None takes a tenth of the sounds out of
            ``pairs``, at least ten and at most a fifth, in whole recordings.
        test: pairs for the figures at the end; None draws as many.
        seed: of the draw; that of a run is its ``common.seed``.

    Raises:
        InputError: for a pair that cannot be read, too few sounds, one caption for all of them, or
            a sound that is in two splits.
    """
    given = {"train": pairs, "valid": valid, "test": test}
    splits = {
        split: list(_clips(items, split)) for split, items in given.items() if items is not None
    }
    splits = _joined(splits)
    _check(splits)
    missing = [split for split in given if split not in splits]
    if missing:
        splits = _drawn(splits, missing, seed)
    return AudioTextDataset("pairs", splits)


def _drawn(
    splits: Mapping[str, list[Clip]], missing: Sequence[str], seed: int
) -> dict[str, list[Clip]]:
    """Splits with a share of the recordings taken out of ``train`` for each that is missing."""
    clips = splits["train"]
    share = min(0.2, max(0.1, LEAST / len(clips)))
    found = draw_splits(clips, {}, dict.fromkeys(missing, share), seed).splits
    drawn: dict[str, list[Clip]] = {name: [] for name in ("train", "valid", "test")}
    for clip, split in zip(clips, found, strict=True):
        drawn[split].append(clip)
    drawn |= {name: its for name, its in splits.items() if name != "train"}
    for name in missing:
        if len(drawn[name]) < 2:
            raise InputError(
                f"The pairs are of too few recordings to draw the split {name!r} of: give pairs "
                f"for it with {name}=..., or more recordings."
            )
    return drawn


def _check(splits: Mapping[str, Sequence[Clip]]) -> None:
    clips = splits["train"]
    if len(clips) < LEAST:
        raise InputError(
            f"There are {len(clips)} different sounds to train on, expected {LEAST} or more: "
            "fewer teach nothing that can be measured."
        )
    texts = {normalize_caption(text) for clip in clips for text in clip.captions}
    if len(texts) < 2:
        raise InputError(
            f"All {len(clips)} sounds have the caption {next(iter(texts))!r}: there is nothing to "
            "tell apart, give each what is heard in it."
        )


def _joined(splits: Mapping[str, list[Clip]]) -> dict[str, list[Clip]]:
    """With the clips of a split that are copies of one file as one, which has all their captions.

    Raises:
        InputError: for a sound, or parts of one file, in two splits.
    """
    split_of = {id(clip): split for split, its in splits.items() for clip in its}
    captions = {id(clip): clip.captions for its in splits.values() for clip in its}
    gone = set()
    for whole, clips in _equal([clip for its in splits.values() for clip in its]):
        first, *others = clips
        for clip in others:
            one, other = split_of[id(first)], split_of[id(clip)]
            if one != other:
                raise InputError(
                    f"The sound {first.key} is in the pairs of {one} and of {other}"
                    + (f", there as {clip.key}" if clip.key != first.key else "")
                    + ": figures would be of known sounds, leave it out of one."
                )
            if whole and id(clip) not in gone:
                captions[id(first)] += captions[id(clip)]
                gone.add(id(clip))
    return {
        split: [
            replace(clip, captions=tuple(dict.fromkeys(captions[id(clip)])))
            for clip in its
            if id(clip) not in gone
        ]
        for split, its in splits.items()
    }


def _equal(clips: Sequence[Clip]) -> Iterator[tuple[bool, list[Clip]]]:
    """Clips of the same bytes, and, marked with False, those that are parts of one file."""
    held = [clip for clip in clips if isinstance(clip.source, MemoryFile)]
    contents: dict[str, list[Clip]] = defaultdict(list)
    for clip in held:
        contents[clip.key].append(clip)
    sizes = {len(clip.source.content) for clip in held if isinstance(clip.source, MemoryFile)}
    stored = [clip for clip in clips if not isinstance(clip.source, MemoryFile)]
    sources: list[Any] = [clip.source for clip in stored]
    whole = [isinstance(source, str) for source in sources]
    for same in (*same_files(sources), *equal_sources(sources)):
        files = [stored[at] for at in same if whole[at]]
        if len(files) > 1:
            yield True, files
        if len(files) < len(same):
            yield False, [stored[at] for at in same]
    for clip, source, is_file in zip(stored, sources, whole, strict=True):
        if is_file and os.path.getsize(source) in sizes:
            content = Path(source).read_bytes()
            contents[_digest(_untimed(content))].append(clip)
    order = {id(clip): at for at, clip in enumerate(clips)}
    for same_content in contents.values():
        if len(same_content) > 1:
            yield True, sorted(same_content, key=lambda clip: order[id(clip)])


@dataclass
class _Sound:
    source: Source
    captions: dict[str, None] = field(default_factory=dict)


def _clips(pairs: Iterable[Any], split: str) -> Iterator[Clip]:
    if isinstance(pairs, (str, bytes, Mapping)):
        raise InputError(
            f"The pairs of {split} are a {type(pairs).__name__}, expected a sequence of (sound, "
            "caption); of a folder give its path as `root`."
        )
    sounds: dict[str, _Sound] = {}
    for number, pair in enumerate(_undecoded(pairs)):
        where = f"Pair {number} of {split}"
        audio, captions = read_pair(pair, where)
        try:
            key, source = _sound(audio)
        except (InputError, OSError) as ex:
            raise InputError(f"{where}: {ex}") from ex
        sounds.setdefault(key, _Sound(source)).captions.update(dict.fromkeys(captions))
    for key, sound in sounds.items():
        yield Clip(key, tuple(sound.captions), sound.source)


def _undecoded(pairs: Any) -> Iterable[Any]:
    """A data set of `datasets` with its files as they are: decoded ones would fill the memory."""
    features = getattr(pairs, "features", None)
    if features is None or not hasattr(pairs, "cast_column"):
        return pairs  # type: ignore[no-any-return]
    for name, kind in dict(features).items():
        if type(kind).__name__ == "Audio":
            pairs = pairs.cast_column(name, replace(kind, decode=False))
    return pairs  # type: ignore[no-any-return]


def _sound(audio: Any) -> tuple[str, Source]:
    """A key that equal sounds share, and where the audio is."""
    source = None if _with_rate(audio) else as_source(audio)
    if source is None:
        return _encoded(audio)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if not os.path.isfile(path):
            raise MissingFileError(f"there is no sound file {path}")
        return os.path.realpath(path), str(path)
    if isinstance(source, MemoryFile):
        return _digest(_untimed(source.content)), source
    assert isinstance(source, (FileSlice, Segment))
    return repr(source), source


def _with_rate(audio: Any) -> bool:
    """Whether it is a pair of an array and its rate."""
    return isinstance(audio, (tuple, list)) and len(audio) == 2 and isinstance(audio[1], Real)


def _encoded(audio: Any) -> tuple[str, Source]:
    """Samples as a file in memory, which every reader takes; float32 keeps them as they are."""
    if _with_rate(audio):
        audio = {"array": audio[0], "sampling_rate": audio[1]}
    rate = audio.get("sampling_rate") if isinstance(audio, Mapping) else None
    if rate is None and hasattr(audio, "get_all_samples"):
        rate = int(audio.get_all_samples().sample_rate)
    if rate is None:
        raise InputError(
            "an array says nothing of its sampling rate: give {'array': ..., 'sampling_rate': ...}"
        )
    waveform = as_waveform(audio, rate)
    content = io.BytesIO()
    soundfile.write(content, np.ascontiguousarray(waveform), int(rate), "FLOAT", format="WAV")
    data = _untimed(content.getvalue())
    return _digest(data), MemoryFile(data, "audio given as an array")


def _untimed(content: bytes) -> bytes:
    """A file without the time of its writing, which libsndfile puts into WAV files of floats."""
    at = content.find(b"PEAK", 12, 128) if content[:4] == b"RIFF" else -1
    return content if at < 0 else content[: at + 12] + bytes(4) + content[at + 16 :]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
