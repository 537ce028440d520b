"""Sentences on how a folder of sounds was read, with examples of its captions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from atr_moco_plugin.data.opening.audio_files import list_files
from atr_moco_plugin.data.opening.captions import CaptionTable
from atr_moco_plugin.data.tables.file_names import AUDIO_SUFFIXES, suffix_of, without_suffix
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES
from atr_moco_plugin.errors import listed

_SHOWN = 5
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")


def examples(tables: Mapping[str, CaptionTable]) -> str:
    """``dog_bark/012.wav -> 'dog bark'``, of a few different captions from the whole list."""
    shown: dict[str, str] = {}
    for table in tables.values():
        for item in table.recordings.values():
            if item.captions:
                shown.setdefault(item.captions[0], f"{item.key} -> {item.captions[0]!r}")
    texts, last = list(shown.values()), len(shown) - 1
    if last < _SHOWN:
        return listed(texts, _SHOWN)
    # From the whole list: its first names would all be alike.
    spread = [texts[round(number * last / (_SHOWN - 1))] for number in range(_SHOWN)]
    return f"{', '.join(spread)} and {len(shown) - _SHOWN:,} more"


def on_depths(inner: Mapping[str, str], captions: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence where some sounds lie deeper than others: the folder meant may be another one."""
    paths = sorted((path for path in inner if captions.get(path)), key=lambda x: x.count("/"))
    if not paths or paths[0].count("/") == paths[-1].count("/"):
        return []
    shown = ", ".join(f"{path} -> {captions[path][0]!r}" for path in (paths[-1], paths[0]))
    return [f"Some sounds lie deeper than others; the folder that a file is in counts: {shown}."]


def unlisted_sounds(
    root: Path, where: Sequence[Path], tables: Mapping[str, CaptionTable]
) -> list[str]:
    """A note where some sounds of a folder are in no row of its tables.

    Args:
        root: the folder.
        where: the tables.
        tables: what they list, each recording with the ``path`` that was found for it.
    """
    listed_files = {
        os.path.realpath(item.path)
        for table in tables.values()
        for item in table.recordings.values()
        if item.path is not None
    }
    sounds = [x for x in list_files(root) if os.path.splitext(x)[1].lower() in AUDIO_SUFFIXES]
    rest = [x for x in sounds if os.path.realpath(root / x) not in listed_files]
    if not rest:
        return []
    names = where[0].name if len(where) == 1 else f"{len(where)} tables"
    return [
        f"{len(rest):,} of the {len(sounds):,} sounds below {root} are in no row of {names} with a "
        f"caption and are not read: {listed(rest)}; write rows for them, or set captions to "
        "folders or names"
    ]


def texts_beside(root: Path) -> list[str]:
    """Notes on files beside the sounds that may hold captions and are not read: spreadsheets, texts
    called like captions, and texts called like sounds."""
    files = [x for x in list_files(root) if not x.rpartition("/")[2].startswith("~$")]
    sounds = {without_suffix(x): x for x in files if suffix_of(x) in AUDIO_SUFFIXES}
    texts = {x: os.path.splitext(x)[0] for x in files if suffix_of(x) in (".txt", ".json")}
    sounds |= {x: x for x in sounds.values()}  # 7.wav.json
    beside = [f"{text} beside {sounds[stem]}" for text, stem in texts.items() if stem in sounds]
    plain = [x for x in texts if suffix_of(x) == ".txt" and "/" not in x]
    called = [x for x in plain if "caption" in x.lower()]
    kinds, wanted = ", ".join(TABLE_SUFFIXES), "with the columns file_name and caption"
    notes = []
    if sheets := [x for x in files if suffix_of(x) in _SHEETS]:
        them = "it" if len(sheets) == 1 else "them"
        notes.append(
            f"{listed(sheets)} is not read: tables are {kinds}; save {them} as CSV, {wanted}"
        )
    if called:
        notes.append(f"{listed(called)} is not read: tables are {kinds}; write one {wanted}")
    if beside:
        notes.append(
            f"{len(beside):,} texts are called like sounds and are not read ({beside[0]}): where "
            f"they are captions, write a table {wanted}"
        )
    return notes
