"""The sound and the captions of one pair, as users write them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from atr_moco_plugin.data.tables.column_names import CAPTIONS
from atr_moco_plugin.data.tables.columns import caption_columns, unused_caption_columns
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
    """The sound and the captions of a mapping, numbered ones too; a row of `datasets` has the path
    of its audio beside it."""
    filled = {x: value for x, value in row.items() if isinstance(x, str) and value is not None}
    sounds = {x: filled[x] for x in _AUDIO if x in filled}
    names = tuple(filled)
    used = caption_columns(names) or tuple(x for x in names if x == _SENTENCE)
    if not sounds or not used:
        raise InputError(
            f"{where} has {', '.join(map(str, row)) or 'nothing'}, expected a sound "
            f"({', '.join(_AUDIO)}) and its caption ({', '.join((*CAPTIONS[:3], _SENTENCE))})."
        )
    captions = [text for x in used for text in _as_list(filled[x])]
    other = [
        x for x in (*unused_caption_columns(names), _SENTENCE) if x in filled and x not in used
    ]
    if more := [x for x in other if any(text not in captions for text in _as_list(filled[x]))]:
        raise InputError(
            f"{where} has captions under {listed((*used, *more))}, of which {listed(more)} would "
            f"not be read: put all of them under {used[0]}, as a list."
        )
    files = {x: value for x, value in sounds.items() if isinstance(value, (str, os.PathLike))}
    if len({os.path.realpath(file) for file in files.values()}) > 1:
        raise InputError(
            f"{where} has several files, under {listed(tuple(files))}: give the one that its "
            "captions are of."
        )
    return next(iter(sounds.values())), captions


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
