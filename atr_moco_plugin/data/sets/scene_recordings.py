"""The recordings that scenes are made of: found, named by their class, in splits by recording."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.assemble import OpeningConfig
from atr_moco_plugin.data.opening.audio_files import AudioFiles
from atr_moco_plugin.data.opening.class_folders import class_folders, words_of_name
from atr_moco_plugin.data.opening.exclusion import Exclusion
from atr_moco_plugin.data.opening.headers import read_headers
from atr_moco_plugin.data.opening.joining import check_shared_clips
from atr_moco_plugin.data.opening.split_names import SPLITS
from atr_moco_plugin.data.opening.splitting import check_no_drawing, draw_splits
from atr_moco_plugin.data.opening.unused_options import refuse_unused
from atr_moco_plugin.data.sets.esc50 import (
    Esc50Config,
    find_index,
    open_esc50,
    read_phrases,
)
from atr_moco_plugin.data.sets.scene_parts import mono_blocks
from atr_moco_plugin.data.sets.scene_rendering import SILENCE
from atr_moco_plugin.data.summary import Counts
from atr_moco_plugin.errors import InputError, MissingFileError, listed
from atr_moco_plugin.ids import has_letters, has_words


@dataclass(frozen=True)
class Recordings:
    """Recordings of sounds, each a clip whose label is its class and whose captions are phrases of
    it.

    Attributes:
        splits: split to its recordings.
        counts: split to what was left out of it.
    """

    splits: Mapping[str, Sequence[Clip]]
    counts: Mapping[str, Counts]


@dataclass(frozen=True, kw_only=True)
class RecordingsConfig(OpeningConfig):
    """Which recordings there are, and which split each is in.

    Attributes:
        root: a folder of ESC-50's layout, or one with a folder of recordings for each class.
        test_fold: of ESC-50's layout without a column ``bench_split``: the fold of split ``test``.
        test_fraction: of other folders: share of each class's recordings in split ``test``.
        valid_fraction: share of each class's recordings in split ``valid``.
        split_seed: decides which recordings are in which split.
        check_audio: look for broken, short and silent files when opening; otherwise training meets
            them.
    """

    root: Path | None = None
    test_fold: int = 4
    test_fraction: float = 0.2
    valid_fraction: float = 0.1
    split_seed: int = 0


def find_recordings(root: Path, name: str, config: RecordingsConfig) -> Recordings:
    """Find the recordings below a folder and put them into splits.

    ESC-50's layout is opened as :func:`~atr_moco_plugin.data.sets.esc50.open_esc50` does it. In
    another folder, the folder that a recording is in names its class; see
    :func:`~atr_moco_plugin.data.opening.class_folders.class_folders`.
    Broken, short and silent files are left out, counted and named in one warning.

    Args:
        root: the folder.
        name: of the data set, for messages.
        config: the options; its ``root`` is not read.

    Raises:
        MissingFileError: if there are no recordings.
        InputError: if a class has no name, a recording is in two splits, ``test_fraction`` is set
            for ESC-50, ``test_fold`` for another folder or an option of drawn splits beside folders
            of splits, or under ``strict`` a recording is missing, broken or silent.
    """
    try:
        find_index(root)
    except MissingFileError:
        return _of_folders(root, name, config)
    return _of_esc50(root, name, config)


def _of_esc50(root: Path, name: str, config: RecordingsConfig) -> Recordings:
    if config.test_fraction != RecordingsConfig.test_fraction:
        refuse_unused(
            "test_fraction",
            f"{root}: `test_fraction` is {config.test_fraction:g}, but of ESC-50 a column "
            "bench_split or the fold `test_fold` is the split 'test': leave `test_fraction` out, "
            f"or set it to its default, {RecordingsConfig.test_fraction:g}",
        )
    data = open_esc50(
        Esc50Config(
            root=root,
            test_fold=config.test_fold,
            valid_fraction=config.valid_fraction,
            seed=config.split_seed,
            strict=config.strict,
            allow_shared_audio=config.allow_shared_audio,
            exclude=config.exclude,
        ),
        of_scenes=True,
    )
    places = [os.fspath(clip.source) for clips in data.splits.values() for clip in clips]
    bad = _bad(name, places, config)
    found: dict[str, Sequence[Clip]] = {}
    counts = dict(data.counts)
    for split, clips in data.splits.items():
        all_of_it = [replace(clip, source=os.fspath(clip.source)) for clip in clips]
        found[split] = [clip for clip in all_of_it if clip.source not in bad]
        unreadable = len(all_of_it) - len(found[split])
        counts[split] = replace(counts.get(split, Counts()), unreadable=unreadable)
    return Recordings(found, counts)


def _of_folders(root: Path, name: str, config: RecordingsConfig) -> Recordings:
    classes = class_folders(root, AudioFiles(root).paths)
    if config.test_fold != RecordingsConfig.test_fold:
        refuse_unused(
            "test_fold",
            f"{root}: `test_fold` is {config.test_fold}, but this folder has no table of ESC-50 "
            "with folds: leave `test_fold` out",
        )
    places = {path: os.path.join(root, path) for path in classes}
    bad = _bad(name, list(places.values()), config)
    # Before splits are drawn, so that a class's one recording for a split is one that is heard.
    words = {
        path: words_of_name(folder)
        for path, (_, folder) in classes.items()
        if places[path] not in bad
    }
    phrases = _phrases(root, {classes[path][1]: label for path, label in words.items()})
    clips = [Clip(path, phrases[label], places[path], label) for path, label in words.items()]
    if any(split is not None for split, _ in classes.values()):
        check_no_drawing(root, config, "valid_fraction", "test_fraction", "split_seed")
        split_of = [str(classes[clip.key][0]) for clip in clips]
    else:
        fractions = {"test": config.test_fraction, "valid": config.valid_fraction}
        split_of = draw_splits(clips, {}, fractions, config.split_seed).splits
    splits: dict[str, Sequence[Clip]] = {
        name: [clip for clip, split in zip(clips, split_of, strict=True) if split == name]
        for name in SPLITS
        if name in split_of
    }
    first = next(iter(splits))
    exclusion = Exclusion(config.exclude)
    splits = exclusion.from_clips(name, splits)
    shared, same = check_shared_clips(name, splits, allow=config.allow_shared_audio)
    # Where splits are drawn, they were in none yet.
    unreadable = Counter(
        classes[path][0] or first for path, place in places.items() if place in bad
    )
    counts = {
        split: Counts(
            unreadable=unreadable[split],
            shared_audio=shared[split],
            same_audio=same[split],
            excluded=exclusion.numbers[split],
        )
        for split in {**splits, **unreadable, **exclusion.numbers}
    }
    return Recordings(splits, counts)


def _phrases(root: Path, folders: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Class to its phrases: of ``class_phrases.json`` where there is one, else its own name.

    Args:
        root: the folder with that file.
        folders: name of a folder to its class, as words.

    Raises:
        InputError: if the name of a folder has no words, or see :func:`~.esc50.read_phrases`.
    """
    if (root / "class_phrases.json").is_file():
        table = read_phrases(root, folders)
        return {label: tuple(table[folder]) for folder, label in folders.items()}
    for folder, label in folders.items():
        if not has_words(label) or not has_letters(label):
            raise InputError(
                f"{root}: the folder {folder!r} names a class and has no word in its name; rename "
                "it to what is heard, or write class_phrases.json with captions for every folder"
            )
    return {label: (label,) for label in folders.values()}


def _bad(name: str, paths: Sequence[str], config: RecordingsConfig) -> set[str]:
    """The broken, short and silent ones of these files, which one warning names.

    Raises:
        InputError: under ``strict``, or if all of them are.
    """
    if not config.check_audio:
        return set()
    problems = zip(paths, _problems(paths, config.decoder), strict=True)
    bad = {path: problem for path, problem in problems if problem}
    named = listed([f"{path} ({problem})" for path, problem in bad.items()])
    if bad and (config.strict or len(bad) == len(paths)):
        raise InputError(
            f"{name}: {len(bad):,} of {len(paths):,} recordings cannot be used: {named}; fetch "
            "them again or take them out"
        )
    if bad:
        warnings.warn(
            f"{name}: {len(bad):,} of {len(paths):,} recordings cannot be used and are left out: "
            f"{named}",
            stacklevel=5,
        )
    return set(bad)


def _problems(paths: Sequence[str], decoder: Decoder) -> Iterator[str]:
    """Why each recording cannot be used; empty if it can be."""
    headers = read_headers(paths, decoder)
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        silent = pool.map(lambda path: _is_silent(path, decoder), paths)
        for header, quiet in zip(headers, silent, strict=True):
            yield header.problem or ("is silent" if quiet else "")


def _is_silent(path: str, decoder: Decoder) -> bool:
    """Whether nothing is heard in all of a file; it is decoded up to the first sound."""
    try:
        return all(np.abs(block).max() < SILENCE for block in mono_blocks(path, decoder))
    except (InputError, OSError, RuntimeError):
        return False  # its header, or training, says why
