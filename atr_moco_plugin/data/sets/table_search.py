"""The tables of a folder of sounds that list them with captions: which there are, and which are
refused or said not to be read."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from atr_moco_plugin.data.opening.audio_files import list_files
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES
from atr_moco_plugin.data.sets.folder_reading import PHRASES
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.column_names import column_name
from atr_moco_plugin.data.tables.columns import caption_columns, sound_column, text_columns
from atr_moco_plugin.data.tables.dialect import LINES_OF_TITLE, names_sounds
from atr_moco_plugin.data.tables.encoding import open_bytes
from atr_moco_plugin.data.tables.file_names import AUDIO_SUFFIXES, suffix_of, without_suffix
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES, check_key_of_rows, columns_of
from atr_moco_plugin.errors import InputError, listed

_KEY = re.compile(r'"([^"\\\n]{1,40})"\s*:')
_HEAD = 2**16  # bytes in which the names of columns are looked for


def find_tables(root: Path) -> tuple[list[Path], list[str]]:
    """The tables of a folder that list its sounds with captions, and notes on those that do not.

    Tables are looked for in the folder itself, and where there is none, in its sub-folders that are
    called like splits, as Hugging Face's ``metadata.csv``.

    Raises:
        InputError: for a table with captions and no files, or files and no captions, for one that
            cannot be read, and, where there is no other table, for such JSON and for tables of
            sounds in further sub-folders.
    """
    folders = [root]
    folders += sorted(x for x in root.iterdir() if x.is_dir() and x.name.lower() in SPLIT_NAMES)
    notes: list[str] = []
    unread: list[Path] = []
    for places in ([root], folders[1:]):
        there = [file for place in places for file in place.iterdir()]
        like_sounds = _called_like_sounds([str(file) for file in there])
        files = sorted(
            file
            for file in there
            if file.suffix.lower() in TABLE_SUFFIXES
            and file.is_file()
            and file.name != PHRASES
            and not file.name.startswith(".")
        )
        tables = [x for x in files if _lists_sounds(x, [] if str(x) in like_sounds else notes)]
        if tables:
            return tables, notes
        unread += files
    for file in unread:
        if file.suffix.lower() == ".json" and _looks_like_captions(file):
            _columns_or_refused(file)
    _refuse_below(root, notes)
    return [], notes


def _called_like_sounds(files: Sequence[str]) -> set[str]:
    """JSON that is called like a sound, ``7.json`` or ``7.wav.json``: there may be many of them,
    which one note says not to be read."""
    sounds = [x for x in files if suffix_of(x) in AUDIO_SUFFIXES]
    names = {*sounds, *map(without_suffix, sounds)}
    return {x for x in files if suffix_of(x) == ".json" and os.path.splitext(x)[0] in names}


def _refuse_below(root: Path, notes: list[str]) -> None:
    """Refuse tables of sounds in sub-folders, where none is looked for: names would be trained on
    in place of their captions. A note names other tables there."""
    files = list_files(root)
    sounds = [x for x in files if suffix_of(x) in AUDIO_SUFFIXES]
    below = [x for x in files if "/" in x and suffix_of(x) in TABLE_SUFFIXES]
    like_sounds = _called_like_sounds(files)
    below = [x for x in below if x not in like_sounds]
    maybe = [x for x in below if (root / x).is_file() and _may_list_sounds(root / x)]
    columns_of_each = {x: _columns_or_refused(root / x) for x in maybe}
    tables = [x for x, its in columns_of_each.items() if sound_column(its) and text_columns(its)]
    if not tables:
        rest = [x for x in below if suffix_of(x) != ".json" or x in maybe]
        if rest:
            notes.append(
                f"Below sub-folders {listed(rest)} {'is' if len(rest) == 1 else 'are'} not read: "
                "no columns are called as those of files (such as file_name) and of captions (such "
                "as caption)"
            )
        return
    many = len(tables) > 1
    what = (f"{len(tables):,} tables" if many else "a table") + " of sounds in "
    what += f"{'sub-folders' if many else 'a sub-folder'}, {listed(tables)}"
    if (place := _common_place(tables)) and all(x.startswith(f"{place}/") for x in sounds):
        instead = f"set root to {root / place}"
    elif many:
        instead = (
            "write one in the folder itself, with the sub-folder in each file_name (dog/012.wav)"
        )
    else:
        instead = "move it into the folder itself"
    raise InputError(
        f"{root}: has {what}: {instead}, or set captions to folders or names to go by the names "
        "alone"
    )


def _common_place(tables: Sequence[str]) -> str | None:
    """The folder that tables are in, each in itself or in its folder of a split; None where they
    are in several."""
    places = set()
    for table in tables:
        parts = list(PurePosixPath(table).parts[:-1])
        if len(parts) > 1 and parts[-1].lower() in SPLIT_NAMES:
            parts.pop()
        places.add("/".join(parts))
    return places.pop() if len(places) == 1 else None


def _may_list_sounds(file: Path) -> bool:
    """Whether a file, which may be none that can be read, has the names of such columns."""
    if suffix_of(file.name) not in (".csv", ".tsv"):
        return _looks_like_captions(file)
    with open_bytes(file) as content:
        head = content.read(_HEAD)
    marked = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = head.decode("utf-16" if marked else "utf-8-sig", "replace")
    return any(map(names_sounds, text.splitlines()[: LINES_OF_TITLE + 1]))


def _looks_like_captions(file: Path) -> bool:
    """Whether a text, which may be no JSON, has the keys of a table of sounds with captions."""
    with open_bytes(file) as content:
        text = content.read().replace(b"\0", b"").decode("utf-8", "replace")
    names = tuple({column_name(name) for name in _KEY.findall(text)})
    return bool(caption_columns(names) and sound_column(names))


def _columns_or_refused(file: Path) -> tuple[str, ...]:
    """The columns of a table. One without is refused: its captions would be lost, and other names
    trained on in their place."""
    try:
        columns = columns_of(file)
        if file.suffix.lower() == ".json":
            check_key_of_rows(file)
    except InputError as ex:
        raise InputError(
            f"{ex}, or, if it is no table of sounds, take it out of the folder, or set captions to "
            "folders or names to go by the names alone"
        ) from ex
    return columns


def _lists_sounds(file: Path, notes: list[str]) -> bool:
    try:
        columns = columns_of(file)
    except InputError as ex:
        if file.suffix.lower() != ".json":
            raise
        notes.append(f"{file.name} is not read: {str(ex).removeprefix(f'{file}: ')}")
        return False
    sounds, texts = sound_column(columns), text_columns(columns)
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
