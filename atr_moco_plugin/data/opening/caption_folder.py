"""Data sets that are a folder with one captions file a split and audio, such as AudioCaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import OpeningConfig, assemble
from atr_moco_plugin.data.opening.audio_files import AudioFiles, describe_folder, list_files
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable, assign_keys
from atr_moco_plugin.data.opening.folder_names import FolderNames
from atr_moco_plugin.data.opening.split_names import SPLITS, split_in_name
from atr_moco_plugin.data.tables.columns import Row, cell_as_is
from atr_moco_plugin.data.tables.file_names import names_path
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES, check_key_of_rows, columns_of
from atr_moco_plugin.errors import InputError, MissingFileError


@dataclass(frozen=True)
class CaptionFolder:
    """How the folder of one data set is read.

    Attributes:
        name: the data set's, as it is written.
        columns: what the captions files must have, in words.
        accepts: column names to whether a file has them.
        read: a captions file and its split to one recording a row, with the row.
        find_audio: sets the path of each recording, relative to the folder of the audio.
    """

    name: str
    columns: str
    accepts: Callable[[tuple[str, ...]], bool]
    read: Callable[[Path, str], Iterator[tuple[Captioned, Row]]]
    find_audio: Callable[[Mapping[str, CaptionTable], AudioFiles], None]


@dataclass(frozen=True)
class CaptionFolderConfig(OpeningConfig):
    """How to open a data set that is a folder of audio and captions files.

    Attributes:
        root: the folder with captions files and audio, both at any depth.
        captions: the folder of the captions files, if they are not in ``root``.
        audio: the folder of the audio, if it is not in ``root``.
    """

    root: Path | None = None
    captions: Path | None = None
    audio: Path | None = None


def open_caption_folder(layout: CaptionFolder, config: CaptionFolderConfig) -> AudioTextDataset:
    """Open a data set's folder with the splits ``train``, ``valid`` and ``test`` that are there.

    Raises:
        MissingFileError: if there are no captions or no audio; under ``strict``, if some audio is
            missing.
        InputError: if a file cannot be read, a split has two captions files, a name fits files in
            two folders, or a recording is in two splits.
    """
    root = required_root(config.root, layout.name)
    files = list_files(root)
    captions = root if config.captions is None else config.captions
    tables = read_captions(layout, captions, files if config.captions is None else None)
    audio = AudioFiles(root, files) if config.audio is None else AudioFiles(config.audio)
    layout.find_audio(tables, audio)
    for table in tables.values():
        for item in table.recordings.values():
            item.path = audio.absolute(item.path)
    return assemble(layout.name.lower(), tables, audio.folder, config)


def required_root(root: Path | None, name: str, kind: str = "folder") -> Path:
    """The place of a data set, which is a folder or of another ``kind``.

    Raises:
        InputError: if none is configured.
    """
    if root is None:
        raise InputError(
            f"{name} needs its {kind}: set root (in a recipe, "
            "`--config dataset.config_overrides.root=PATH`)"
        )
    return Path(root)


def required_value(row: Mapping[str, object], column: str | None, file: Path, number: int) -> str:
    """The value of the column that says which recording a row is about.

    Raises:
        InputError: if there is none.
    """
    value = "" if column is None else cell_as_is(row[column])
    if not value.strip():
        raise InputError(
            f"{file}: row {number} has nothing in column {column!r}; give its recording or take "
            "the row out"
        )
    return value


def read_captions(
    layout: CaptionFolder, place: Path, files: Sequence[str] | None = None
) -> dict[str, CaptionTable]:
    """Read the captions of every split that has a file.

    A file belongs to the split in its name (``val.csv``, ``clotho_captions_evaluation.csv``). Files
    without the columns, such as Clotho's metadata, are passed over.

    Args:
        layout: how the files are recognised and read.
        place: a folder with captions files at any depth, or one such file.
        files: what :func:`~.audio_files.list_files` gives for ``place``; ``None`` lists it.

    Returns:
        ``train``, ``valid`` and ``test``, as far as they are there, to their recordings.

    Raises:
        MissingFileError: if there is no such file; the message says what was found.
        InputError: if a split has two, or one cannot be read.
    """
    chosen: dict[str, Path] = {}
    refused: dict[Path, str] = {}
    for relative in list_files(place) if files is None else files:
        path = place if place.is_file() else place / relative
        split = split_in_name(path.stem)
        if path.suffix.lower() not in TABLE_SUFFIXES or split is None:
            continue
        columns = columns_of(path)
        if not layout.accepts(columns):
            refused[path] = f"{relative} with the columns {', '.join(columns)[:200] or 'none'}"
        elif split in chosen:
            raise InputError(
                f"{layout.name}: {chosen[split]} and {path} both list split {split!r}; set "
                "captions to the folder of the one to use"
            )
        else:
            chosen[split] = path
    if not chosen:
        for path in refused:
            if path.suffix.lower() == ".json":
                check_key_of_rows(path)
        shown = list(refused.values())[:3]
        found = f"found {', '.join(shown)}" if shown else describe_folder(place)
        raise MissingFileError(
            f"{place}: not a folder with {layout.name} captions: looked for train, val or test in "
            f"the name of a .csv file with {layout.columns}, {found}; set root to the data set's "
            "folder, or captions to the folder of its CSV files"
        )
    tables = {split: CaptionTable() for split in SPLITS if split in chosen}
    for split, table in tables.items():
        for item, row in layout.read(chosen[split], split):
            table.add(item, row)
    assign_keys(tables)
    return tables


def find_by_name(
    tables: Mapping[str, CaptionTable], audio: AudioFiles, *, other_splits: bool
) -> None:
    """Set the path of every recording whose audio has one of its names, relative to the audio's
    folder.

    A file that two recordings of a split may mean belongs to the one that gives its folders, else
    to none of them. Nor does one of another folder belong to it
    (:class:`~.folder_names.FolderNames`).

    Args:
        tables: split to its recordings, changed in place.
        audio: the files.
        other_splits: whether audio may be in the folder of another split.

    Raises:
        InputError: if a name fits files in two folders, or only a name that fits two recordings is
            there.
    """
    folders = folder_names(tables, audio)
    for split, table in tables.items():
        items = table.recordings.values()
        for item in items:
            item.path = audio.find(
                item.names, split, other_splits=other_splits, copies=item.copies, folders=folders
            )
            if item.path is None and item.shared_names:
                other = audio.find(item.shared_names, split, other_splits=other_splits, copies=True)
                if other is not None:
                    raise shared_name_error(item, other)
        claims = Counter(item.path for item in items if item.path is not None)
        for item in items:
            path = item.path
            if path and claims[path] > 1 and not any(names_path(n, path) for n in item.names):
                item.path = None


def folder_names(tables: Mapping[str, CaptionTable], audio: AudioFiles) -> FolderNames:
    """What the folders tell of all names in the tables."""
    items = (item for table in tables.values() for item in table.recordings.values())
    return FolderNames((name for item in items for name in item.names), audio.paths)


def shared_name_error(item: Captioned, name: str) -> InputError:
    """The error where the only file for a recording has a name that other recordings have too."""
    return InputError(
        f"{item.where}: a file {name!r} is there, which may be that of {item.key!r} or of another "
        f"of its name; name the files apart, such as {item.identity.rpartition('/')[2]!r}"
    )
