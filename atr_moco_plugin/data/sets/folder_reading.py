"""What a folder of sounds says of them by its sub-folders, or by names of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe_folder
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable, assign_keys
from atr_moco_plugin.data.opening.class_folders import class_folders, words_of_name
from atr_moco_plugin.data.opening.duplicates import same_files
from atr_moco_plugin.data.opening.name_captions import caption_of_name
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES
from atr_moco_plugin.data.sets.esc50 import read_phrases
from atr_moco_plugin.data.sets.folder_notes import examples, on_depths
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.ids import has_letters

PHRASES = "class_phrases.json"
"""A file in the folder with several captions for each sub-folder."""


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
    inner = _below_common_folder({path: path for path in paths})
    split_of, inner = _given_splits(inner)
    inner = _below_common_folder(inner)
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
        phrases = {folder: (text,) if has_letters(text) else () for folder, text in words.items()}
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


def _below_common_folder(inner: Mapping[str, str]) -> dict[str, str]:
    """Paths below the folders that all of them lie in."""
    common = list(os.path.commonprefix([short.split("/")[:-1] for short in inner.values()]))
    while common and common[-1].lower() in SPLIT_NAMES:
        common.pop()
    cut = len("/".join(common)) + 1 if common else 0
    return {path: short[cut:] for path, short in inner.items()}
