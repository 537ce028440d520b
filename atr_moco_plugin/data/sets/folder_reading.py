"""What a folder of sounds says of them: in a table, by its sub-folders, or by names of files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe_folder
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable, assign_keys
from atr_moco_plugin.data.opening.class_folders import class_folders, words_of_name
from atr_moco_plugin.data.opening.duplicates import same_files
from atr_moco_plugin.data.opening.file_lookup import FileLookup
from atr_moco_plugin.data.opening.name_captions import caption_of_name
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES, split_in_name
from atr_moco_plugin.data.sets.esc50 import read_phrases
from atr_moco_plugin.data.sets.folder_files import below_common_folder, find_moved
from atr_moco_plugin.data.sets.folder_notes import examples, on_depths
from atr_moco_plugin.data.sets.manifest import audio_names, find_audio, read_manifest_captions
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import Row, audio_column, caption_columns, filled_cell
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES, columns_of, read_rows
from atr_moco_plugin.errors import InputError, MissingFileError

PHRASES = "class_phrases.json"
"""A file in the folder with several captions for each sub-folder."""

_LETTERS = re.compile(r"[^\W\d_]")


@dataclass
class FolderContent:
    """What was read of a folder.

    Attributes:
        tables: split to its recordings, each with the ``path`` that was found for it.
        labels: key of a recording to its class, where folders name classes.
        recordings: key to the recording that a clip is of, as far as a table says it.
        given: whether the folder has splits of its own.
        listed: all clips that have audio, also those that are left out afterwards. Splits are drawn
            of them, so that a clip that is excluded or cannot be read moves no other one.
        notes: the rules that were followed, in sentences with examples.
    """

    tables: dict[str, CaptionTable]
    labels: dict[str, str] = field(default_factory=dict)
    recordings: dict[str, str] = field(default_factory=dict)
    given: bool = False
    listed: Sequence[Clip] = ()
    notes: list[str] = field(default_factory=list)


def find_tables(root: Path) -> tuple[list[Path], list[str]]:
    """The tables of a folder that list its sounds with captions, and notes on those that do not.

    Tables are looked for in the folder itself, and where there is none, in its sub-folders that are
    called like splits, as Hugging Face's ``metadata.csv``.

    Raises:
        InputError: for a table with captions and no files, or files and no captions.
    """
    folders = [root]
    folders += sorted(x for x in root.iterdir() if x.is_dir() and x.name.lower() in SPLIT_NAMES)
    notes: list[str] = []
    for places in ([root], folders[1:]):
        files = sorted(
            file
            for place in places
            for file in place.iterdir()
            if file.suffix.lower() in TABLE_SUFFIXES and file.is_file() and file.name != PHRASES
        )
        tables = [file for file in files if _lists_sounds(file, notes)]
        if tables:
            return tables, notes
    return [], notes


def _lists_sounds(file: Path, notes: list[str]) -> bool:
    try:
        columns = columns_of(file)
    except InputError:
        if file.suffix.lower() != ".json":
            raise
        columns = ()  # some other JSON
    sounds = audio_column(columns) or (column_names.VIDEO if column_names.VIDEO in columns else "")
    texts = caption_columns(columns) or _label_columns(columns)
    if bool(sounds) != bool(texts):
        missing = "captions" if sounds else "files"
        wanted = (*column_names.CAPTIONS, *column_names.LABELS) if sounds else column_names.AUDIO
        raise InputError(
            f"{file}: has the columns {', '.join(columns)[:200]}, of which none has the {missing}: "
            f"call it one of {', '.join(wanted)}, or set captions to folders or names to go by the "
            "names alone"
        )
    if not sounds:
        named = f"of its columns {', '.join(columns)[:200]} none" if columns else "no column"
        notes.append(
            f"{file.name} is not read: {named} is called as one of files (such as file_name) or of "
            "captions (such as caption)"
        )
    return bool(sounds)


def _label_columns(columns: Sequence[str]) -> list[str]:
    return [name for name in column_names.LABELS if name in columns]


def of_tables(root: Path, tables: Sequence[Path]) -> FolderContent:
    """The recordings that tables list.

    Args:
        root: the folder that keys are relative to.
        tables: one, or one for each split, called like it or in a folder called like it.

    Raises:
        MissingFileError, InputError: see :func:`~atr_moco_plugin.data.sets.manifest.open_manifest`.
    """
    of_split = {table: _split_of(root, table) for table in tables}
    unnamed = [table.name for table, split in of_split.items() if split is None]
    if len(tables) > 1 and (unnamed or len(set(of_split.values())) < len(tables)):
        which = (
            "and not every one is called like a split" if unnamed else "two of them of one split"
        )
        raise InputError(
            f"{root}: has {len(tables)} tables of sounds, {', '.join(x.name for x in tables)[:200]}"
            f", {which}: set root to one of them, or call them train.csv, valid.csv and test.csv"
        )
    content = FolderContent({})
    lookup = FileLookup()
    read: list[tuple[Path, list[Captioned]]] = []
    for table, split in of_split.items():
        named = table.parent.relative_to(root).as_posix()
        prefix = "" if named == "." else f"{named}/"
        found = read_manifest_captions(table, None, split or "train", _with_label_as_caption)
        for name, its in found.items():
            items = list(its.recordings.values())
            read.append((table, items))
            for item in items:
                item.path = find_audio(lookup, os.fspath(table.parent), item)
            content.tables.setdefault(name, CaptionTable())
            _add(content.tables[name], its, prefix)
    find_moved(root, [item for _, items in read for item in items])
    assign_keys(content.tables)
    for table, items in read:
        _name_recordings(table, items, content.recordings)
    content.given = len(content.tables) > 1
    columns = columns_of(tables[0])
    texts = caption_columns(columns) or _label_columns(columns)[:1]
    where = tables[0].name if len(tables) == 1 else f"{len(tables)} tables"
    files = audio_column(columns) or column_names.VIDEO
    content.notes.append(
        f"Captions are the column{'s' * (len(texts) > 1)} {', '.join(texts)} of {where}, files its "
        f"column {files}: {examples(content.tables)}."
    )
    return content


def _split_of(root: Path, table: Path) -> str | None:
    if table.parent != root:
        return SPLIT_NAMES[table.parent.name.lower()]
    return split_in_name(table.stem)


def _with_label_as_caption(row: Row) -> Row:
    """A row that has a label and no captions, with the label's words as its caption."""
    if caption_columns(tuple(row)):
        return row
    labels = _label_columns(tuple(row))
    return {**row, "caption": words_of_name(str(row[labels[0]] or ""))} if labels else row


def _name_recordings(table: Path, items: Sequence[Captioned], recordings: dict[str, str]) -> None:
    names = [name for name in column_names.RECORDINGS if name in columns_of(table)]
    if not names:
        return
    of_row = {item.row: item.key for item in items}
    for number, row in enumerate(read_rows(table), start=1):
        value = filled_cell(row, names)
        if value and number in of_row and audio_names(row):
            recordings[of_row[number]] = value


def _add(table: CaptionTable, other: CaptionTable, prefix: str) -> None:
    for identity, item in other.recordings.items():
        if prefix and not item.has_clip_id:
            item.key, item.identity = prefix + item.key, prefix + item.identity
        known = table.recordings.setdefault(prefix + identity, item)
        if known is not item:
            known.merge(item)
    table.empty_captions += other.empty_captions
    table.repeated_rows += other.repeated_rows
    table.without_caption += other.without_caption


def of_names(root: Path, by: str) -> FolderContent:
    """The recordings of a folder without a table, by the names of its sub-folders or files.

    Folders that all sounds lie in, such as ``audio/``, say nothing of them and are passed over.

    Args:
        root: the folder.
        by: ``folders``, ``names``, or ``auto`` for folders where there are any.

    Raises:
        MissingFileError: if there are no sounds.
        InputError: if some sounds are in sub-folders and others are not, or no name has a word.
    """
    paths = AudioFiles(root).paths
    if not paths:
        raise MissingFileError(
            f"{root}: has no sounds: looked for .wav, .flac, .ogg, .mp3 and the like at any depth, "
            f"{describe_folder(root)}"
        )
    inner = below_common_folder({path: path for path in paths})
    split_of, inner = _given_splits(inner)
    inner = below_common_folder(inner)
    loose = [path for path in inner.values() if "/" not in path]
    if by == "auto" and loose and len(loose) < len(inner):
        nested = next(path for path in inner.values() if "/" in path)
        raise InputError(
            f"{root}: {len(loose):,} sounds are in no sub-folder ({loose[0]}) and "
            f"{len(inner) - len(loose):,} are in one ({nested}), so that it is not clear which "
            "names are captions: set captions to names or folders, move them, or write a table"
        )
    by_folder = by == "folders" or (by == "auto" and not loose)
    captions, labels = (_by_folder if by_folder else _by_file)(root, inner)
    _check_one_class(root, labels)
    content = FolderContent({}, labels=labels)
    for path in inner:
        item = Captioned(path, captions.get(path, ()), (path,), os.fspath(root / path))
        item.path = os.path.join(root, path)
        table = content.tables.setdefault(split_of.get(path, "train"), CaptionTable())
        table.recordings[path] = item
    assign_keys(content.tables)
    if not any(table.recordings for table in content.tables.values()):
        raise InputError(
            f"{root}: no name has a word in it, such as {paths[0]}: name files or sub-folders by "
            "what is heard (dog_bark/012.wav), or write a table with the columns file_name and "
            "caption"
        )
    content.given = len(content.tables) > 1
    what = "sub-folders" if by_folder else "files"
    content.notes.append(f"Captions are the names of {what}: {examples(content.tables)}.")
    content.notes += on_depths(inner, captions) if by_folder else []
    return content


def _check_one_class(root: Path, labels: Mapping[str, str]) -> None:
    """Refuse a file that links put into the folders of two classes."""
    paths = list(labels)
    for same in same_files([os.path.join(root, path) for path in paths]):
        of_class = {labels[paths[at]]: paths[at] for at in same}
        if len(of_class) > 1:
            one, other, *_ = of_class.values()
            raise InputError(
                f"{root}: {one} and {other} are one file in the folders of two classes: remove one "
                "of the two, or write a table with a row for each caption"
            )


def _by_folder(
    root: Path, inner: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Path to its captions, and to its class."""
    classes = class_folders(root, list(inner.values()))
    folder_of = {path: classes[short][1] for path, short in inner.items() if short in classes}
    words = {folder: words_of_name(folder) for folder in set(folder_of.values())}
    if (root / PHRASES).is_file():
        table = read_phrases(root, set(words))
        phrases = {folder: tuple(table[folder]) for folder in words}
    else:
        phrases = {
            folder: (text,) if _LETTERS.search(text) else () for folder, text in words.items()
        }
    captions = {path: phrases[folder] for path, folder in folder_of.items()}
    return captions, {path: words[folder] for path, folder in folder_of.items()}


def _by_file(
    root: Path, inner: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    texts = {path: caption_of_name(path) for path in inner}
    return {path: (text,) for path, text in texts.items() if text}, {}


def _given_splits(inner: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The splits of paths whose first folders are all called like one, and the paths below."""
    tops = {path.split("/", 1)[0].lower() for path in inner.values()}
    if any("/" not in path for path in inner.values()) or not tops <= SPLIT_NAMES.keys():
        return {}, dict(inner)
    parts = {path: short.split("/", 1) for path, short in inner.items()}
    return (
        {path: SPLIT_NAMES[top.lower()] for path, (top, _) in parts.items()},
        {path: rest for path, (_, rest) in parts.items()},
    )
