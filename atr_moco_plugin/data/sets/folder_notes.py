"""Sentences on how a folder of sounds was read, with examples of its captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atr_moco_plugin.data.opening.captions import CaptionTable
from atr_moco_plugin.errors import listed

_SHOWN = 5


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
