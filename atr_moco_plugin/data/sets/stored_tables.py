"""Folders of Hugging Face's ``datasets``, whose audio stays where it is in their Arrow files.

``save_to_disk`` writes Arrow files, in which the bytes of an audio file lie in one piece. A clip is
that piece (:class:`~atr_moco_plugin.data.audio.source.FileSlice`): nothing is unpacked, and worker
processes read it as they read files. Of Parquet files, ``datasets`` makes Arrow files in its cache.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from atr_moco_plugin.data.audio.source import FileSlice, FileSource
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import OpeningConfig
from atr_moco_plugin.data.opening.checks import check_words
from atr_moco_plugin.data.opening.exclusion import Exclusion
from atr_moco_plugin.data.opening.headers import read_headers
from atr_moco_plugin.data.opening.joining import check_shared_clips
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES, SPLITS, split_in_name
from atr_moco_plugin.data.sets.folder_reading import FolderContent
from atr_moco_plugin.data.sets.label_captions import with_label_as_caption
from atr_moco_plugin.data.sets.split_columns import SplitColumns, check_split_of_table
from atr_moco_plugin.data.sets.stored_clips import StoredClips, check_clip_ids
from atr_moco_plugin.data.sets.stored_columns import find_columns, stored_labels, stored_rows
from atr_moco_plugin.data.summary import Counts
from atr_moco_plugin.data.tables.column_names import column_name
from atr_moco_plugin.data.tables.file_names import AUDIO_SUFFIXES, suffix_of
from atr_moco_plugin.data.tables.unread import warned_rows
from atr_moco_plugin.errors import InputError, MissingFileError, listed

_STATES = ("dataset_dict.json", "state.json")


def is_stored(root: Path) -> bool:
    """Whether a folder is one of ``datasets``: written by ``save_to_disk``, or Parquet files in it
    or in its ``data/``, and no sounds beside them."""
    if any((root / name).is_file() for name in _STATES):
        return True
    places = [x for x in (root, root / "data") if x.is_dir()]
    names = [file.name for place in places for file in place.iterdir()]
    sounds = any(suffix_of(name) in AUDIO_SUFFIXES for name in names)
    return any(name.endswith(".parquet") for name in names) and not sounds


def open_stored(
    root: Path, config: OpeningConfig, name: str
) -> tuple[FolderContent, AudioTextDataset]:
    """Open a folder of ``datasets``.

    The captions are in a column that is called as a manifest's are, or in a column of labels. Rows
    of one ``clip_id`` or of one file are one clip. Its key is its table and the number of its first
    row as `datasets` counts them, from 0; in messages rows count from 1. Parts of sounds are not
    read: a row is a whole one.

    Args:
        root: the folder.
        config: what is an error.
        name: of the data set.

    Raises:
        InputError: if the package ``datasets`` is not installed or cannot read the folder, a column
            is missing or there twice, no label has a letter, a row or a clip is of two splits,
            rows of a clip contradict each other, or under ``strict`` if a clip cannot be used.
        MissingFileError: if no clip can be used.
    """
    found: dict[str, StoredClips] = {}
    audio = text = ""
    loaded = _loaded(root)
    labels = stored_labels(root, loaded)
    for split, table in loaded.items():
        audio, texts = find_columns(root, table.features)
        text = (labels or texts)[0]
        named = SPLIT_NAMES.get(split.lower(), split)
        where = f"{root}{f' (table {split})' if len(loaded) > 1 else ''}"
        splits_of = SplitColumns(where, named)
        columns = tuple(column_name(column) for column in table.column_names if column != audio)
        told = warned_rows(where, columns, stored_rows(table), parts=False)
        rows = zip(told, _sources(root, table, audio), strict=True)
        for number, (row, source) in enumerate(rows, start=1):
            key, at = f"{split}/{number - 1}", f"{where}: row {number}"
            own = named
            if len(loaded) > 1:
                check_split_of_table(at, row, named)
            else:
                own = splits_of.of_row(row, number)
            clips = found.setdefault(own, StoredClips())
            clips.add(at, key, with_label_as_caption(row, labels), source)
        splits_of.warn()
    found = {split: found[split] for split in (*SPLITS, *found) if split in found}
    joined = {split: its.joined() for split, its in found.items()}
    exclusion = Exclusion(config.exclude)
    kept = exclusion.from_clips(name, {split: clips for split, (clips, _) in joined.items()})
    check_clip_ids(name, {split: found[split].clip_ids(clips) for split, clips in kept.items()})
    its_clips = (clip for clips in kept.values() for clip in clips)
    check_words(name, ((x, clip.key) for clip in its_clips for x in clip.captions))
    splits, seconds, rates, broken = _with_lengths(name, kept, config)
    shared, same = check_shared_clips(name, splits, allow=config.allow_shared_audio)
    counts = {
        split: Counts(
            seconds=seconds.get(split),
            missing=its.missing,
            unreadable=its.too_large + len(broken.get(split, ())),
            no_caption=joined[split][1],
            empty_captions=its.empty_captions,
            repeated_rows=its.repeated_rows,
            shared_audio=shared[split],
            same_audio=same[split],
            excluded=exclusion.numbers[split],
        )
        for split, its in found.items()
    }
    lost = sum(count.missing + count.unreadable + count.no_caption for count in counts.values())
    left = {split: clips for split, clips in splits.items() if clips}
    if not left or (config.strict and lost):
        raise MissingFileError(
            f"{root}: {lost:,} clips have no audio in column {audio!r} that can be read, or "
            f"no caption in {text!r}: correct them, or set strict: false"
        )
    first = next(clip for clips in left.values() for clip in clips)
    note = (
        f"Captions are the column {text} of a folder of datasets, audio its column {audio}: "
        f"{first.key} -> {first.captions[0]!r}."
    )
    data = AudioTextDataset(name, left, counts=counts, cache=config.cache, file_rates=rates)
    data.unreadable = tuple(clip.source for clips in broken.values() for clip in clips)
    every = [clip for its, _ in joined.values() for clip in its]
    recordings = {key: said for its in found.values() for key, said in its.recordings().items()}
    given = len(found) > 1
    return FolderContent({}, recordings=recordings, given=given, listed=every, notes=[note]), data


def _loaded(root: Path) -> Mapping[str, Any]:
    """Split to its table, with audio as it is stored."""
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{root} is a folder of `datasets`, which is not installed: pip install "
            "'atr-moco-plugin[datasets]'"
        ) from None
    saved = any((root / name).is_file() for name in _STATES)
    files = {} if saved else _parquet(root)
    try:
        if saved:
            loaded: Any = datasets.load_from_disk(str(root))
        else:
            loaded = datasets.load_dataset("parquet", data_files=files)
    except Exception as ex:  # damaged files raise nearly anything
        said = " ".join(f"{type(ex).__name__}: {ex}".split())
        raise InputError(
            f"{root}: cannot be read as a folder of `datasets` ({said[:200]}): save it again with "
            "`save_to_disk`"
        ) from ex
    # A format that was set (`set_format("torch")`) is saved along, and values would be tensors.
    loaded = loaded.with_format(None)
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def _parquet(root: Path) -> dict[str, list[str]]:
    """Split to its files, by their names or their folders: ``train-00000-of-00002.parquet``."""
    files = sorted(root.rglob("*.parquet"))
    found = [split_in_name(x.stem) or SPLIT_NAMES.get(x.parent.name.lower(), "") for x in files]
    if any(found) and not all(found):
        raise InputError(
            f"{root}: {files[found.index('')].name} is called like no split, and others are: call "
            "it like one, such as train-00000.parquet"
        )
    splits: dict[str, list[str]] = {}
    for file, split in zip(files, found, strict=True):
        splits.setdefault(split or "train", []).append(str(file))
    return splits


def _sources(root: Path, table: Any, column: str) -> Iterator[FileSource | None]:
    """Where the audio of each row is: in a table's file, or a file of its own, below the
    folder where its path is relative."""
    numbers = count(1)
    for file in table.cache_files:
        yield from _sources_in(root, Path(file["filename"]), column, numbers)


def _sources_in(
    root: Path, file: Path, column: str, numbers: Iterator[int]
) -> Iterator[FileSource | None]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as mapped:
        base = mapped.read_buffer().address
        mapped.seek(0)
        try:
            reader: Any = pa.ipc.open_stream(mapped)
        except pa.ArrowInvalid:
            mapped.seek(0)
            reader = pa.ipc.open_file(mapped)
        for chunk in reader.read_all().column(column).chunks:
            stored, paths = chunk.field("bytes"), chunk.field("path").to_pylist()
            wide = pa.types.is_large_binary(stored.type)
            _, offsets, data = stored.buffers()
            ends = np.frombuffer(offsets, np.int64 if wide else np.int32)[stored.offset :]
            start = 0 if data is None else data.address - base
            valid = stored.is_valid().to_pylist()
            for at, (path, number) in enumerate(zip(paths, numbers, strict=False)):
                size = int(ends[at + 1] - ends[at]) if valid[at] else 0
                if size:
                    yield FileSlice(file, start + int(ends[at]), size, path or f"row {number}")
                else:
                    own = os.path.join(root, path or "")
                    yield own if os.path.isfile(own) else None


def _with_lengths(
    name: str, splits: Mapping[str, Sequence[Clip]], config: OpeningConfig
) -> tuple[dict[str, Sequence[Clip]], dict[str, float], dict[int, int], dict[str, list[Clip]]]:
    """Clips with their lengths, the seconds of each split, files of each rate, and the clips of
    each split that cannot be read, which one warning names."""
    if not config.check_audio:
        return dict(splits), {}, {}, {}
    usable: dict[str, list[Clip]] = {}
    seconds: dict[str, float] = {}
    rates: dict[int, int] = {}
    broken: list[str] = []
    unreadable: dict[str, list[Clip]] = {}
    for split, clips in splits.items():
        usable[split], seconds[split], unreadable[split] = [], 0.0, []
        headers = read_headers([clip.source for clip in clips], config.decoder)
        for clip, header in zip(clips, headers, strict=True):
            if header.problem:
                unreadable[split].append(clip)
                broken.append(f"{clip.key}: {header.problem}")
                continue
            usable[split].append(replace(clip, seconds=header.seconds))
            seconds[split] += header.seconds
            rates[header.rate] = rates.get(header.rate, 0) + 1
    if broken:
        warnings.warn(
            f"{name}: {len(broken):,} clips are not usable and left out: {listed(broken)}",
            stacklevel=4,
        )
    return {**usable}, seconds, rates, unreadable
