"""Tar shards: ``<key>.flac`` beside ``<key>.json`` or ``<key>.txt`` in each, ``sizes.json`` beside
them.

The layout is that of LAION-CLAP's data (https://github.com/LAION-AI/audio-dataset), with JSON, and
of open_clip's, with plain text, which the package webdataset streams. Here clips are read at random
from where they are in their shard instead, since an exact resume, a true shuffle of the epoch and
counts of what is missing all need to know every clip.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atr_moco_plugin.config import Config
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.audio_files import describe_folder
from atr_moco_plugin.data.opening.caption_folder import required_root
from atr_moco_plugin.data.opening.checks import check_words
from atr_moco_plugin.data.opening.exclusion import Exclusion
from atr_moco_plugin.data.opening.joining import check_shared_clips
from atr_moco_plugin.data.opening.split_names import split_in_name
from atr_moco_plugin.data.sets.tar_index import Shard, read_shard
from atr_moco_plugin.data.summary import Counts
from atr_moco_plugin.data.tables.encoding import parse_json
from atr_moco_plugin.errors import InputError, MissingFileError, listed

_NAMED = 3


@dataclass(frozen=True)
class WebdatasetConfig(Config):
    """How to open a folder of shards.

    Attributes:
        root: the folder with a folder of ``*.tar`` for each split (``train``, ``valid`` or ``val``,
            ``test``, ...), or with the shards of one split.
        name: of the data set; part of every clip id.
        split: what the split is called whose shards lie in ``root`` itself.
        strict: make everything an error that is otherwise left out, counted and named in a warning:
            truncated shards, clips without audio or text, another number of clips than
            ``sizes.json`` says.
        allow_shared_audio: let a recording be in two splits, and count such clips.
        exclude: a text file with the keys of clips that are left out, one a line.
        cache: keep decoded audio in memory.
    """

    root: Path | None = None
    name: str = "webdataset"
    split: str = "train"
    strict: bool = False
    allow_shared_audio: bool = False
    exclude: Path | None = None
    cache: bool = False


def open_webdataset(config: WebdatasetConfig) -> AudioTextDataset:
    """Open shards as a data set; only their headers and texts are read, nothing is unpacked.

    A clip's key is its shard's path below ``root`` and its own name there, ``train/0.tar/17``. Its
    captions are ``text`` of the JSON member, a string or a list, or else the plain text, as one.
    Folders whose names speak of one split (``balanced_train``, ``unbalanced_train``) are that split
    together.

    Raises:
        FileNotFoundError: if ``root`` has no shards.
        InputError: if no clip can be used, under ``strict`` if one cannot, or if a recording is in
            two splits.
    """
    root = required_root(config.root, "A webdataset")
    splits: dict[str, list[Clip]] = {}
    counts: dict[str, Counts] = {}
    problems: list[str] = []
    for split, paths in find_shards(root, config.split).items():
        sizes = _read_sizes({path.parent for path in paths}, problems)
        shards = [read_shard(path) for path in paths]
        missing = 0
        for shard in shards:
            size = sizes.pop(shard.path, None)
            problems += _problems(shard, size, root)
            missing += len(shard.no_audio) + max(0, (size or 0) - shard.keys)
        for path, size in sizes.items():
            problems.append(f"{path.relative_to(root)} is not there, sizes.json has {size} clips")
            missing += size
        clips = [clip for shard in shards for clip in _clips(shard, root)]
        if clips:
            splits[split] = clips
        counts[split] = Counts(
            missing=missing,
            unreadable=sum(len(shard.too_large) for shard in shards),
            no_caption=sum(len(shard.no_caption) for shard in shards),
            empty_captions=sum(shard.empty_captions for shard in shards),
            repeated_rows=sum(len(shard.repeated) + len(shard.same_key) for shard in shards),
        )
    if problems:
        _report(config.name, root, problems, error=config.strict or not splits)
    exclusion = Exclusion(config.exclude)
    left = exclusion.from_clips(config.name, splits)
    its_clips = (clip for clips in left.values() for clip in clips)
    check_words(config.name, ((x, clip.key) for clip in its_clips for x in clip.captions))
    shared, same = check_shared_clips(config.name, left, allow=config.allow_shared_audio)
    for split in splits:
        counts[split] = replace(
            counts[split],
            shared_audio=shared[split],
            same_audio=same[split],
            excluded=exclusion.numbers[split],
        )
    return AudioTextDataset(
        config.name,
        left,
        counts=counts,
        cache=config.cache,
    )


def find_shards(root: Path, split: str) -> dict[str, list[Path]]:
    """Split to its shards: those in ``root`` itself are ``split``, those in a folder below it are
    the split the folder's name speaks of, or one of that name.

    Raises:
        FileNotFoundError: if there are none.
        InputError: if they are both in ``root`` and in folders below it.
    """
    flat = _tars(root)
    nested: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_dir() and (paths := _tars(folder)):
            nested[split_in_name(folder.name) or folder.name] += paths
    if flat and nested:
        raise InputError(
            f"{root}: has shards itself and in {', '.join(nested)}; move {flat[0].name} and those "
            "beside it into a folder of their split"
        )
    if not flat and not nested:
        raise MissingFileError(
            f"{root}: looked for *.tar in it and in folders such as train/ below it, "
            f"{describe_folder(root)}"
        )
    return dict(nested) if nested else {split: flat}


def _tars(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("*.tar") if path.is_file()]
    # 2.tar before 10.tar
    return sorted(
        found,
        key=lambda path: [
            (part.isdecimal(), int(part) if part.isdecimal() else 0, part)
            for part in re.split(r"(\d+)", path.name)
        ],
    )


def _clips(shard: Shard, root: Path) -> list[Clip]:
    url = shard.path.relative_to(root).as_posix()
    return [Clip(f"{url}/{item.key}", item.captions, item.audio) for item in shard.samples]


def _problems(shard: Shard, size: int | None, root: Path) -> list[str]:
    """What is wrong with a shard that has ``size`` clips by ``sizes.json``, in words."""
    name = shard.path.relative_to(root).as_posix()
    stated = "" if size is None else f", sizes.json has {size}"
    problems: list[str] = []
    if shard.problem:
        problems.append(
            f"{name} breaks off ({shard.problem}): {shard.complete} clips come before that{stated}"
        )
    elif size is not None and size != shard.complete:
        problems.append(f"{name} has {shard.complete} clips{stated}")
    for keys, what in (
        (shard.no_audio, "no audio"),
        (shard.no_caption, "no JSON or .txt with a text"),
        (shard.too_large, "audio that is too large"),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            problems.append(f"{name}: {what} for {keys[0]!r}{more}")
    for members, what in (
        (shard.repeated, "members have the name of an earlier one"),
        (shard.same_key, "sounds have the key of an earlier sound"),
    ):
        if members:
            shown = listed([repr(member) for member in members])
            problems.append(f"{name}: {len(members)} {what} ({shown})")
    return problems


def _read_sizes(folders: set[Path], problems: list[str]) -> dict[Path, int]:
    """Clips a shard, as the ``sizes.json`` beside them say."""
    sizes: dict[Path, int] = {}
    for path in sorted(folder / "sizes.json" for folder in folders):
        if not path.is_file():
            continue
        try:
            values = parse_json(path.read_bytes())
            sizes |= {path.parent / Path(name).name: int(size) for name, size in values.items()}
        except (ValueError, TypeError, AttributeError, OverflowError):
            problems.append(f"{path} is not a JSON object of shard names and numbers of clips")
    return sizes


def _report(name: str, root: Path, problems: Sequence[str], *, error: bool) -> None:
    more = len(problems) - _NAMED
    shown = "; ".join(problems[:_NAMED]) + (f"; and {more:,} more" if more > 0 else "")
    message = f"{name}: {root}: {shown}"
    if error:
        raise InputError(f"{message}; fetch the shards again")
    warnings.warn(f"{message}; left out for now", stacklevel=3)
