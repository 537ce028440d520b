"""What the openers of folders with one captions file a split have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.opening.assemble import Policy
from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe, list_files, names_path
from atr_moco_plugin.data.opening.captions import (
    SPLITS,
    CaptionTable,
    Recording,
    finish,
    indistinct,
    split_name,
)
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES, columns_of
from atr_moco_plugin.errors import InputError, MissingFileError


@dataclass(frozen=True)
class CaptionLayout:
    """How a data set's captions files are recognised and read.

    Attributes:
        name: the data set's, for messages.
        columns: what the files must have, in words.
        accepts: column names to whether a file has them.
        read: a file to its recordings.
    """

    name: str
    columns: str
    accepts: Callable[[tuple[str, ...]], bool]
    read: Callable[[Path, str], CaptionTable]


@dataclass(frozen=True)
class FolderConfig(Policy):
    """How to open a data set that is a folder of audio and captions files.

    Attributes:
        root: the folder with captions files and audio, both at any depth.
        captions: the folder of the captions files, if they are not in ``root``.
        audio: the folder of the audio, if it is not in ``root``.
    """

    root: Path | None = None
    captions: Path | None = None
    audio: Path | None = None


def need_root(root: Path | None, name: str) -> Path:
    """The place of a data set as a path.

    Raises:
        ValueError: if none is configured.
    """
    if root is None:
        raise InputError(
            f"{name} needs its folder: set root (in a recipe, "
            "`--config dataset.config_overrides.root=PATH`)"
        )
    return Path(root)


def filled(row: Mapping[str, object], column: str | None, path: Path, number: int) -> str:
    """The value of a row's column, which says whose captions the row has.

    Raises:
        ValueError: if there is none.
    """
    value = "" if column is None else str(row[column])
    if not value.strip():
        raise InputError(
            f"{path}: row {number} has nothing in column {column!r}; give its recording or take "
            "the row out"
        )
    return value


def read_captions(
    layout: CaptionLayout, place: Path, files: Sequence[str] | None = None
) -> dict[str, CaptionTable]:
    """Read the captions of every split that has a file.

    A file belongs to the split its name speaks of (``val.csv``,
    ``clotho_captions_evaluation.csv``); files without the columns, such as Clotho's metadata, are
    passed over.

    Args:
        layout: the data set's.
        place: a folder with captions files at any depth, or one such file.
        files: what :func:`~.files.list_files` gives for it, if that is at hand.

    Returns:
        ``train``, ``valid``, ``test``, those there are, to their recordings.

    Raises:
        FileNotFoundError: if there is no such file; the message says what was found.
        ValueError: if a split has two, or one cannot be read.
    """
    chosen: dict[str, Path] = {}
    refused: list[str] = []
    for relative in list_files(place) if files is None else files:
        path = place if place.is_file() else place / relative
        split = split_name(path.stem)
        if path.suffix.lower() not in TABLE_SUFFIXES or split is None:
            continue
        columns = columns_of(path)
        if not layout.accepts(columns):
            refused.append(f"{relative} with the columns {', '.join(columns)[:200] or 'none'}")
        elif split in chosen:
            raise InputError(
                f"{layout.name}: {chosen[split]} and {path} both list split {split!r}; set "
                "captions to the folder of the one to use"
            )
        else:
            chosen[split] = path
    if not chosen:
        found = describe(place) if not refused else "found " + ", ".join(refused[:3])
        raise MissingFileError(
            f"{place}: not a folder with {layout.name} captions: looked for train, val or test in "
            f"the name of a .csv file with {layout.columns}, {found}; set root to the data set's "
            "folder, or captions to the folder of its CSV files"
        )
    return finish({split: layout.read(chosen[split], split) for split in SPLITS if split in chosen})


def read_folder(
    layout: CaptionLayout, root: Path, captions: Path | None, audio: Path | None
) -> tuple[dict[str, CaptionTable], AudioFiles]:
    """Captions and audio files of a data set's folder, or of two folders.

    Args:
        layout: the data set's.
        root: its folder, which is listed once.
        captions: where the captions are, if not in ``root``.
        audio: where the audio is, if not in ``root``.
    """
    files = list_files(root)
    if captions is None:
        tables = read_captions(layout, root, files)
    else:
        tables = read_captions(layout, Path(captions))
    if audio is None:
        return tables, AudioFiles(root, files)
    return tables, AudioFiles(audio, list_files(audio))


def find_exactly(
    tables: Mapping[str, CaptionTable], audio: AudioFiles, *, elsewhere: bool
) -> dict[str, list[str | None]]:
    """Relative path of every recording by one of its names, ``None`` where there is no file.

    A file that two recordings of a split may mean belongs to the one that gives its folders, else
    to none of them.

    Raises:
        ValueError: if a name fits files in two folders, or only a name that fits two recordings is
            there.
    """
    found: dict[str, list[str | None]] = {}
    for split, table in tables.items():
        items = list(table.recordings.values())
        found[split] = paths = [_find_one(item, audio, split, elsewhere) for item in items]
        claims = Counter(path for path in paths if path is not None)
        if len(claims) < len(paths) - paths.count(None):
            for at, (item, path) in enumerate(zip(items, paths, strict=True)):
                if claims[path] > 1 and not any(names_path(name, path) for name in item.names):
                    paths[at] = None
    return found


def _find_one(item: Recording, audio: AudioFiles, split: str, elsewhere: bool) -> str | None:
    path = audio.find(item.names, split, elsewhere=elsewhere, copies=item.copies)
    if path is None and item.shared_names:
        other = audio.find(item.shared_names, split, elsewhere=elsewhere, copies=True)
        if other is not None:
            raise indistinct(item, other)
    return path


def absolute(
    sources: Mapping[str, Sequence[str | None]], audio: AudioFiles
) -> dict[str, list[str | None]]:
    """The same with paths on disk."""
    return {
        split: [None if path is None else audio.absolute(path) for path in paths]
        for split, paths in sources.items()
    }
