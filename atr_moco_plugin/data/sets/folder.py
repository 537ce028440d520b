"""Any folder of sounds: with a table, with sub-folders that are captions, or of `datasets`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from atr_moco_plugin.config import in_range
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import OpeningConfig, assemble
from atr_moco_plugin.data.opening.audio_files import describe_folder
from atr_moco_plugin.data.opening.caption_folder import required_root
from atr_moco_plugin.data.opening.split_names import SPLITS
from atr_moco_plugin.data.opening.splitting import Drawn, check_no_drawing, draw_splits
from atr_moco_plugin.data.sets.folder_classes import warn_of_lost_classes, with_classes
from atr_moco_plugin.data.sets.folder_notes import texts_beside, unlisted_sounds
from atr_moco_plugin.data.sets.folder_reading import FolderContent, of_names
from atr_moco_plugin.data.sets.folder_tables import of_tables
from atr_moco_plugin.data.sets.stored_tables import is_stored, open_stored
from atr_moco_plugin.data.sets.table_search import find_tables
from atr_moco_plugin.data.summary import NO_SPLIT, Counts
from atr_moco_plugin.errors import InputError, MissingFileError, listed

MIN_CLIPS, MIN_TRAIN = 10, 6
"""Sounds that a folder must have, and that its split to train on must have."""


@dataclass(frozen=True)
class FolderConfig(OpeningConfig):
    """How to open a folder of sounds.

    Attributes:
        root: the folder, or the table in it.
        name: the data set's, part of every clip id.
        captions: where they come from: a ``table``, the names of sub-``folders``, or the ``names``
            of files; ``auto`` takes a table where there is one, else sub-folders, else names.
        valid_fraction: share of the clips for split ``valid`` where the folder has no splits;
            ``None`` takes a tenth, at least ten clips and at most a fifth of all.
        test_fraction: the same for split ``test``.
        seed: decides which recordings are in which split.
    """

    root: Path | None = None
    name: str = "folder"
    captions: Literal["auto", "table", "folders", "names"] = "auto"
    valid_fraction: float | None = None
    test_fraction: float | None = None
    seed: int = 0

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from in_range(self, "valid_fraction", "test_fraction", least=0, most=0.5)


class FolderDataset(AudioTextDataset):
    """A folder of sounds that is open.

    Attributes:
        notes: the rules by which it was read, in sentences, to be shown before training.
    """

    notes: tuple[str, ...] = ()


def open_folder(config: FolderConfig) -> FolderDataset:
    """Open a folder of sounds.

    Captions come from the first of these that there is:

    1. a folder of Hugging Face's ``datasets``: what ``save_to_disk`` writes, or Parquet files, with
       a column of the type ``Audio``;
    2. a table with the columns of a manifest (see :func:`~.manifest.open_manifest`), or one for
       each split, called like it or in a sub-folder called like it. A column ``label``, ``class``,
       ``class_name`` or ``category`` stands in for missing captions, the first that has letters;
    3. sub-folders: ``dog_bark/012.wav`` is "dog bark";
    4. the names of files: ``dog_bark_02.wav`` is "dog bark".

    A class, which is a sub-folder or a caption of many clips, is relevant to all its clips. Where
    the folder has no splits, they are drawn by recording (:func:`~.splitting.draw_splits`).

    Raises:
        MissingFileError: if there are no sounds.
        InputError: if the folder cannot be read by these rules, has too few sounds, one caption for
            all, a recording in two splits, or splits of its own beside an option of drawn ones.
    """
    root = required_root(config.root, "A folder of sounds", "folder")
    if not root.exists():
        raise MissingFileError(f"{root}: there is no such folder: set root to that of the sounds")
    if config.captions in ("auto", "table") and root.is_dir() and is_stored(root):
        content, data = open_stored(root, config, config.name)
        return _finished(root, content, data, config)
    unread: list[str] = []
    try:
        content = _read(root, config, unread)
        content.listed = [
            Clip(item.key, item.captions, source)
            for table in content.tables.values()
            for item in table.recordings.values()
            if (source := item.source) is not None
        ]
        folder = root if root.is_dir() else root.parent
        data = assemble(config.name, content.tables, folder, config)
        return _finished(root, content, data, config)
    except InputError as ex:
        if not unread:
            raise
        raise type(ex)(f"{ex} ({listed(unread)})") from ex


def _read(root: Path, config: FolderConfig, unread: list[str]) -> FolderContent:
    """The content of a folder, and in ``unread`` notes on tables and sounds that are not read."""
    tables: list[Path] = []
    if root.is_file():
        if config.captions not in ("auto", "table"):
            raise InputError(
                f"{root}: is a file, but captions is {config.captions}: set root to the folder"
            )
        root, tables = root.parent, [root]
    elif config.captions in ("auto", "table"):
        tables, notes = find_tables(root)
        unread += notes
        if not tables and config.captions == "table":
            raise MissingFileError(
                f"{root}: has no table of its sounds, {describe_folder(root)}: write one with the "
                "columns file_name and caption, or set captions to auto"
            )
    if not tables and config.captions == "auto":
        unread += texts_beside(root)
    content = of_tables(root, tables) if tables else of_names(root, config.captions)
    content.notes[:0] = [f"{note}." for note in unread]
    if tables:
        more = unlisted_sounds(root, tables, content.tables)
        unread += more
        content.notes += [f"{note}." for note in more]
    return content


def _finished(
    root: Path, content: FolderContent, data: AudioTextDataset, config: FolderConfig
) -> FolderDataset:
    """With classes and splits, or refused."""
    splits = with_classes(data.splits, content.labels, config.name)
    clips = [clip for its in splits.values() for clip in its]
    _check_captions(root, clips)
    warn_of_lost_classes(clips, config.name)
    notes, counts = list(content.notes), data.counts
    classes = {clip.label for its in splits.values() for clip in its}
    by_label = None not in classes
    if by_label:
        notes.append(
            f"Each of the {len(classes):,} captions is relevant to all clips it is said of."
        )
    _check_numbers(root, {"train": clips})
    if set(splits) <= {"train"}:
        if content.given:
            raise InputError(
                f"{root}: has splits of its own, and of all but train no sound can be used, so "
                "that there is nothing to evaluate on: bring the others back, or leave their rows "
                "out to have splits drawn"
            )
        among = with_classes({"": content.listed}, content.labels, config.name)[""]
        drawn = draw_splits(among, content.recordings, _fractions(len(among), config), config.seed)
        split_of = {clip.source: split for clip, split in zip(among, drawn.splits, strict=True)}
        splits = _put(splits["train"], split_of)
        if lost := sorted({*drawn.splits} - {*splits}):
            raise InputError(
                f"{root}: all sounds that were drawn for the split {lost[0]} are excluded or "
                "cannot be read: bring one back, or set another `seed`"
            )
        broken = Counter(split_of[source] for source in data.unreadable)
        counts = _counted(counts["train"], splits, broken)
        notes += _said(drawn, splits)
    else:
        check_no_drawing(root, config, "valid_fraction", "test_fraction", "seed")
        notes += _in_two_splits(root, splits, content, allow=config.allow_shared_audio)
    _check_numbers(root, splits)
    opened = FolderDataset(
        config.name,
        splits,
        relevance_mode="label" if by_label else "clip",
        counts=counts,
        cache=config.cache,
        file_rates=data.file_rates,
    )
    opened.notes, opened.unreadable = tuple(notes), data.unreadable
    return opened


def _check_captions(root: Path, clips: Sequence[Clip]) -> None:
    if len({number for clip in clips for number in clip.caption_ids}) == 1:
        clip = clips[0]
        raise InputError(
            f"{root}: all {len(clips):,} sounds have one caption, {clip.captions[0]!r} (such as "
            f"{clip.key}), so that there is nothing to tell apart: name sub-folders or files by "
            "what is heard, or write a table with the columns file_name and caption"
        )


def _in_two_splits(
    root: Path, splits: Mapping[str, Sequence[Clip]], content: FolderContent, *, allow: bool
) -> list[str]:
    """Refuse recordings of a column that are in two splits, or say how many where they may be."""
    named = {
        clip.source: recording
        for clip in content.listed
        if (recording := content.recordings.get(clip.key)) is not None
    }
    first: dict[str, tuple[str, str]] = {}
    found: dict[str, str] = {}
    for split, clips in splits.items():
        for clip in clips:
            recording = named.get(clip.source, "")
            other, key = first.setdefault(recording, (split, clip.key))
            if recording and other != split:
                both = f"{recording} ({key} in {other!r}, {clip.key} in {split!r})"
                found.setdefault(recording, both)
    which = f"{len(found):,} recordings are in two splits: {listed(list(found.values()))}"
    if found and not allow:
        raise InputError(
            f"{root}: {which}; put all clips of each into one of them, name them apart if they "
            "are different recordings, or set allow_shared_audio: true"
        )
    return [f"{which}."] if found else []


def _check_numbers(root: Path, splits: Mapping[str, Sequence[Clip]]) -> None:
    number, total = len(splits.get("train", ())), sum(map(len, splits.values()))
    least, where = MIN_CLIPS, "sounds that can be used"
    if number < total:
        there = listed([f"{split} {len(its):,}" for split, its in splits.items()])
        least, where = MIN_TRAIN, f"sounds to train on (its splits are {there})"
    if number < least:
        raise InputError(
            f"{root}: has {number} {where}, but at least {least} are needed to tell each from "
            "others: add more, or search with a model as it is"
        )


def _fractions(clips: int, config: FolderConfig) -> dict[str, float]:
    usual = min(0.2, max(0.1, 10 / clips))
    stated = {"test": config.test_fraction, "valid": config.valid_fraction}
    return {split: usual if value is None else value for split, value in stated.items()}


def _put(clips: Sequence[Clip], split_of: Mapping[object, str]) -> dict[str, Sequence[Clip]]:
    """Clips in the splits that were drawn of all those that are listed, by their sources."""
    found: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in clips:
        found[split_of[clip.source]].append(clip)
    return {split: its for split, its in found.items() if its}


def _counted(
    counts: Counts, splits: Mapping[str, Sequence[Clip]], broken: Counter[str]
) -> dict[str, Counts]:
    """The counts of drawn splits. Clips that cannot be read were drawn into one; those without
    audio were in none. What is not counted by clips stays with ``train``."""
    result: dict[str, Counts] = {}
    for split, clips in splits.items():
        known = [clip.seconds for clip in clips]
        total = None if None in known else sum(x for x in known if x is not None)
        own = counts if split == "train" else Counts()
        result[split] = replace(own, seconds=total, missing=0, unreadable=broken[split])
    lost = Counts(missing=counts.missing, unreadable=counts.unreadable - broken.total())
    return {**result, NO_SPLIT: lost} if lost != Counts() else result


def _said(drawn: Drawn, splits: Mapping[str, Sequence[Clip]]) -> list[str]:
    sizes = ", ".join(f"{split} {len(clips):,}" for split, clips in splits.items())
    rule = "equal files are of one recording"
    if drawn.example is not None:
        rule += (
            f", and so are clips whose names say so: {drawn.example[0]} is of {drawn.example[1]}"
        )
    notes = [
        f"There are no splits; they are drawn by recording, of which there are "
        f"{drawn.recordings:,} ({rule}): {sizes}."
    ]
    thin = [repr(label) for label in drawn.thin if label]
    if thin:
        notes.append(f"Classes with too few recordings to be in every split: {listed(thin)}.")
    return notes
