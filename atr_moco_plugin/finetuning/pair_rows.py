"""The sound and the captions of one pair, as users write them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from atr_moco_plugin.data.tables.column_names import CAPTIONS
from atr_moco_plugin.data.tables.columns import caption_columns
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.ids import normalize_caption

_SENTENCE = "sentence"
"""Where some data sets of `datasets` have their text; other names are those of captions files."""

_AUDIO = ("audio", "file", "path", "file_name")


def read_pair(pair: Any, where: str) -> tuple[Any, list[str]]:
    """The sound and the captions of a pair.

    Args:
        pair: ``(sound, caption)``, or a mapping such as a row of `datasets`.
        where: what to call it in messages.

    Raises:
        InputError: where one of the two is not there, or it contradicts itself.
    """
    if isinstance(pair, Mapping):
        audio, captions = _of_row(pair, where)
    elif isinstance(pair, (tuple, list)) and len(pair) == 2:
        audio, captions = pair
    else:
        raise InputError(
            f"{where} is a {type(pair).__name__}, expected (sound, caption) or a mapping with "
            "audio and caption."
        )
    texts = [captions] if isinstance(captions, str) else captions
    if not isinstance(texts, (list, tuple)) or not all(isinstance(x, str) for x in texts):
        wrong = next((x for x in _as_list(texts) if not isinstance(x, str)), texts)
        raise InputError(f"{where} has a caption of the type {type(wrong).__name__}.")
    texts = [text for text in texts if normalize_caption(text)]
    if not texts:
        raise InputError(f"{where} has no caption with a word: give it one or leave it out.")
    return audio, list(texts)


def _of_row(row: Mapping[Any, Any], where: str) -> tuple[Any, Any]:
    """The sound and the captions of a mapping, numbered ones too."""
    filled = {x: value for x, value in row.items() if isinstance(x, str) and not _is_empty(value)}
    sounds = {x: filled[x] for x in _AUDIO if x in filled}
    names = tuple(filled)
    used = caption_columns(names) or tuple(x for x in names if x == _SENTENCE)
    if not sounds or not used:
        raise InputError(
            f"{where} has {', '.join(map(str, row)) or 'nothing'}, expected a sound "
            f"({', '.join(_AUDIO)}) and its caption ({', '.join((*CAPTIONS, _SENTENCE))})."
        )
    captions = [text for x in used for text in _as_list(filled[x])]
    read = {normalize_caption(x) for x in captions if isinstance(x, str)}
    more = [x for x in names if x not in used and not _texts_of(x, filled[x]) <= read]
    if more:
        raise InputError(
            f"{where} has captions under {listed((*used, *more))}, of which {listed(more)} would "
            f"not be read: put all of them under {used[0]}, as a list."
        )
    # A row of `datasets` has the path of its audio beside it, perhaps of another folder.
    files = {x: value for x, value in sounds.items() if isinstance(value, (str, os.PathLike))}
    there = {os.path.realpath(file) for file in files.values() if os.path.exists(file)}
    if len(there) > 1 or len({os.path.basename(file) for file in files.values()}) > 1:
        raise InputError(
            f"{where} has several files, under {listed(tuple(files))}: give the one that its "
            "captions are of."
        )
    return next(iter(sounds.values())), captions


def _is_empty(value: Any) -> bool:
    """Whether a cell has nothing; pandas writes NaN into it."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _texts_of(name: str, value: Any) -> set[str]:
    """What a column says in words, normalised, where its name is one of captions."""
    texts = _as_list(value)
    if not (name == _SENTENCE or caption_columns((name,))):
        return set()
    if not all(isinstance(text, str) for text in texts):
        return set()
    return {found for text in texts if (found := normalize_caption(text))}


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
