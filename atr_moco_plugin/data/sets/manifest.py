"""Any data set as one table: a row a clip or a caption, with the path of the audio."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import Policy, assemble
from atr_moco_plugin.data.opening.audio_files import Listings, describe, names_path
from atr_moco_plugin.data.opening.captions import (
    SPLIT_NAMES,
    SPLITS,
    CaptionTable,
    Recording,
    finish,
    indistinct,
)
from atr_moco_plugin.data.opening.duplicates import same_file
from atr_moco_plugin.data.opening.folders import need_root
from atr_moco_plugin.data.sets import youtube
from atr_moco_plugin.data.tables.columns import (
    AUDIO_COLUMNS,
    audio_column,
    caption_columns,
    row_audio,
    row_captions,
)
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES, read_rows
from atr_moco_plugin.data.tables.segments import fragment, names_places, segment_of, starts_of
from atr_moco_plugin.errors import InputError, MissingFileError

_ID_COLUMNS = ("id", "key")
_SPLIT_COLUMNS = ("split", "subset")


@dataclass(frozen=True)
class ManifestConfig(Policy):
    """How to open a manifest.

    Attributes:
        root: the manifest, or a folder with ``manifest.csv``, ``.tsv``, ``.jsonl`` or ``.json`` or
            with no other table than the manifest.
        audio: the folder that audio paths are relative to, if it is not the manifest's.
        name: the data set's, part of every clip id; give two different data sets two names.
        split: the split of rows that name none.
    """

    root: Path | None = None
    audio: Path | None = None
    name: str = "manifest"
    split: str = "train"


def open_manifest(config: ManifestConfig) -> AudioTextDataset:
    """Open a manifest: CSV, TSV or JSON with an audio path and captions in every row.

    Columns: the audio in ``file_name`` or another of :data:`~.columns.AUDIO_COLUMNS` (the first
    that the row fills; another one must not be the name of another file there), or as
    ``youtube_id`` (the file is ``<id>`` or ``Y<id>`` with an audio suffix); captions as
    :func:`~.columns.row_captions` reads them; optionally a part of the file as
    :func:`~.segments.segment_of` reads it, and the split in ``split``. ``val``, ``development`` and
    the like become ``valid``, ``train``, ...; other splits keep their names.

    A clip is a file, or a part of one: rows of one file are one clip, however they spell its path.
    Of ``youtube_id`` the clip is (``youtube_id``, ``start_time``). Rows of one ``clip_id`` are one
    clip as well, and their files must be equal. A clip's key is its ``clip_id``, else its ``id`` or
    ``key`` where each clip has one and no two the same, else its path, relative to the audio
    folder.

    Raises:
        FileNotFoundError: if there is no manifest or no audio; under ``strict``, if some audio is
            missing.
        ValueError: if the manifest cannot be read or lacks a column, a ``clip_id`` contradicts the
            files, a part is not in its file, or a recording is in two splits.
    """
    path = _find_manifest(need_root(config.root, "A manifest"))
    folder = os.fspath(path.parent if config.audio is None else config.audio)
    tables = read_manifest_captions(path, folder, config.split)
    return assemble(config.name, tables, _find(tables, folder), folder, config)


def read_manifest_captions(
    path: str | os.PathLike[str],
    audio: str | os.PathLike[str] | None = None,
    split: str = "train",
) -> dict[str, CaptionTable]:
    """The captions alone, without audio, as :func:`open_manifest` reads them.

    Args:
        path: the manifest.
        audio: the folder that audio paths are relative to; ``None`` is the manifest's.
        split: of rows that name none.

    Returns:
        Split to its recordings.

    Raises:
        FileNotFoundError, ValueError: see :func:`open_manifest`.
    """
    path = Path(path)
    folder = os.fspath(path.parent if audio is None else audio)
    tables: dict[str, CaptionTable] = {}
    table_of: dict[str, CaptionTable] = {}  # by what a row says: most rows say what others said
    default = SPLIT_NAMES.get(split.lower(), split)
    own_of: dict[str, str] = {}
    other_rows: Counter[str] = Counter()
    unread: dict[str, set[str]] = {}
    place, number = os.fspath(path), 0
    for number, row in enumerate(read_rows(path), start=1):
        columns = tuple(row)
        names = _names(row, columns)
        if not names or not caption_columns(columns):
            what = "the audio's path" if not names else "a caption"
            raise InputError(
                f"{path}: row {number} does not say {what}; needed are one of the columns "
                f"{', '.join(AUDIO_COLUMNS)} or youtube_id, and caption, caption_1, captions, "
                f"text, raw_text or full_text; it has {', '.join(row)[:200] or 'none'}"
            )
        said = repr((row.get("split"), row.get("subset")))
        if said not in table_of:
            own_of[said] = _split_of(row, path, number)
            table_of[said] = tables.setdefault(own_of[said] or default, CaptionTable())
        table_of[said].add(_recording(row, columns, names, folder, place, number), row)
        if (own_split := own_of[said]) and own_split not in SPLITS:
            other_rows[own_split] += 1
        if number == 1 and not set(_SPLIT_COLUMNS) & set(columns):
            unread = {column: set() for column in columns}
        if unread:
            _keep_splits(row, unread)
    if not number:
        raise InputError(f"{path}: has no rows; write one for every clip, below the column names")
    _warn_of_splits(path, other_rows, unread, default)
    known = [name for name in SPLITS if name in tables]
    others = [name for name in tables if name not in SPLITS]
    return finish({name: tables[name] for name in known + others})


def _recording(
    row: Mapping[str, object],
    columns: tuple[str, ...],
    names: tuple[str, ...],
    folder: str,
    place: str,
    number: int,
) -> Recording:
    clip_id = _first(row, ("clip_id",))
    item = Recording("", tuple(row_captions(row)), names, place=place, row=number)
    if audio_column(columns) is None:  # a video: its file is the cut already
        key, item.shared_names = names[0], names[:2]
        item.identity = youtube.clip_name(key, youtube.start_of(row))
    else:
        if len(names) > 1:
            item.names = tuple(name for name in names if _alike(name, names[0]))
            item.others = names[1:]
        key = _relative(names[0], folder)
        if names_places(columns):
            item.segment = None if "youtube_id" in row else segment_of(row, item.where)
            item.starts = "" if item.segment else starts_of(row)
            if video := _first(row, ("youtube_id",)):
                item.starts = f"youtube_id {video}" + (item.starts and f", {item.starts}")
            key += fragment(item.segment)
        item.identity = key
        if len(item.names) > 1:  # 001.wav in one column and dogs/001.wav in another
            item.identity = _relative(max(item.names, key=len), folder) + fragment(item.segment)
    item.key = clip_id or _first(row, _ID_COLUMNS) or key
    item.given = bool(clip_id)
    return item


def _split_of(row: Mapping[str, object], path: Path, number: int) -> str:
    """The split that a row names, empty if none."""
    names = [name for column in _SPLIT_COLUMNS if (name := _first(row, (column,)))]
    found = [SPLIT_NAMES.get(name.lower(), name) for name in names]
    if len(set(found) & set(SPLITS)) > 1:
        raise InputError(
            f"{path}: row {number} is of the split {names[0]!r} and of the subset {names[1]!r}; "
            "keep one of the two columns"
        )
    return found[0] if found else ""


def _keep_splits(row: Mapping[str, object], unread: dict[str, set[str]]) -> None:
    """Keep the columns that have nothing but names of splits in all rows so far."""
    for column in list(unread):
        value = row.get(column)
        name = value.strip().lower() if isinstance(value, str) else ""
        if name in SPLIT_NAMES:
            unread[column].add(SPLIT_NAMES[name])
        else:
            del unread[column]


def _warn_of_splits(
    path: Path, other_rows: Counter[str], unread: dict[str, set[str]], default: str
) -> None:
    if other_rows:
        names = ", ".join(f"{name[:40]!r} ({n:,})" for name, n in other_rows.most_common(5))
        more = f" and {len(other_rows) - 5:,} more" if len(other_rows) > 5 else ""
        warnings.warn(
            f"{path}: rows of the splits {names}{more} are neither trained on nor evaluated unless "
            f"an option names their split; if they are misspelled, write {', '.join(SPLITS)}",
            stacklevel=4,
        )
    for column, names in unread.items():
        if len(names) > 1:
            warnings.warn(
                f"{path}: column {column!r} has names of splits and is not read, so that all rows "
                f"are {default}; call it split",
                stacklevel=4,
            )


def _find_manifest(root: Path) -> Path:
    if root.is_file():
        return root
    named = [root / f"manifest{suffix}" for suffix in TABLE_SUFFIXES]
    found = [path for path in named if path.is_file()]
    if not found and root.is_dir():
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
        # JSON beside a table is rarely another one.
        found = [path for path in found if path.suffix.lower() != ".json"] or found
    if len(found) != 1:
        raise MissingFileError(
            f"{root}: no single manifest there: looked for manifest.csv, .tsv, .jsonl or .json or the "
            f"only such file, {describe(root)}; set root to the manifest itself"
        )
    return found[0]


def _find(tables: Mapping[str, CaptionTable], folder: str) -> dict[str, list[str | None]]:
    listings = Listings()
    sources: dict[str, list[str | None]] = {}
    for split, table in tables.items():
        sources[split] = [_find_one(listings, folder, item) for item in table.recordings.values()]
    return sources


def _find_one(listings: Listings, folder: str, item: Recording) -> str | None:
    for name in item.names:
        path = listings.locate(folder, name)
        if path is not None:
            for other in item.others:
                _check_other(listings, folder, item, path, other)
            return path
    for name in item.shared_names:
        if listings.locate(folder, name) is not None:
            raise indistinct(item, name)
    return None


def _check_other(listings: Listings, folder: str, item: Recording, path: str, other: str) -> None:
    """Refuse a second column that names another file, since one of the two would be read without a
    word; a title that is no file here contradicts nothing."""
    found = listings.locate(folder, other)
    if found is not None and same_file(found) != same_file(path):
        raise InputError(
            f"{item.where} names two files, {item.names[0]!r} and {other!r}; keep the column with "
            f"its audio, and rename the other (audio is looked for in {', '.join(AUDIO_COLUMNS)})"
        )


def _names(row: Mapping[str, object], columns: tuple[str, ...]) -> tuple[str, ...]:
    """Where the audio of a row may be, relative to the audio folder; nothing if it does not say."""
    if audio_column(columns) is not None:
        return row_audio(row)
    video = str(row.get("youtube_id") or "")
    return youtube.names_of(video, youtube.start_of(row)) if video else ()


def _alike(one: str, two: str) -> bool:
    """Whether two names may be one file's: one may lack folders of the other."""
    one, two = one.replace("\\", "/"), two.replace("\\", "/")
    return names_path(one, two) or names_path(two, one)


def _first(row: Mapping[str, object], columns: tuple[str, ...]) -> str:
    for column in columns:
        if column in row and (value := row[column]) is not None and value != "":
            return str(value).strip()
    return ""


def _relative(name: str, folder: str) -> str:
    """The name as a key: however it is spelled, and below ``folder`` wherever that is."""
    if name[0] not in "/." and "/." not in name and "//" not in name and os.sep == "/":
        return name  # as most are
    path = os.path.normpath(os.path.join(folder, name))
    relative = os.path.relpath(path, folder)
    return path if os.path.isabs(name) and relative.startswith("..") else relative
