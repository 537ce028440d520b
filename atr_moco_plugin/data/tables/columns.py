"""The columns of a table that have audio and captions, and the captions of a row."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping
from functools import lru_cache

from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.encoding import parse_json

Row = dict[str, object]
"""A row of a table: column name, as :func:`~.column_names.column_name` has it, to value."""

_KNOWN = {
    *column_names.AUDIO,
    column_names.VIDEO,
    column_names.CLIP_ID,
    *column_names.SPLITS,
    *column_names.FURTHER,
}
# caption_1, caption1, caption 1, caption.1 (pandas renames a second "caption" so), caption (1).
_CAPTION = re.compile(rf"({'|'.join(column_names.CAPTIONS)})(?:[\s._#-]*\(?(\d+)\)?)?")
_ABOUT_CAPTIONS = re.compile(
    r"(num|number|n)_.*|.*(id|index|count|number|length|language|source|path|file)s?"
)
_NOTHING = ("None", "nan", "null", "NaN")  # items of a list in a cell
_BLANKS = {*_NOTHING, "NULL", "NA", "N/A", "n/a", "#N/A", "<NA>", "#NAME?"}
"""Cells that pandas and spreadsheets write where there is nothing."""
_LINE_BREAKS = re.compile(r"\s*[\r\n]\s*")


@lru_cache(maxsize=1024)
def caption_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns with captions, in order.

    For example ``caption``, ``caption_2`` and ``caption_10``. The first word of
    :data:`~.column_names.CAPTIONS` that is there counts: alone, then with a number behind it,
    smallest first, as in ``caption_1``, ``caption1``, ``caption 1``, ``caption.1`` and
    ``caption (1)``. Beside ``caption``, numbered ``captions`` count as well.

    Args:
        columns: names in lower case.
    """
    found = [(name, match) for name in columns if (match := _CAPTION.fullmatch(name))]
    if not found:
        return ()
    word = min((match[1] for _, match in found), key=column_names.CAPTIONS.index)
    words = {word}
    if word == "caption" and any(match[1] == "captions" and match[2] for _, match in found):
        words.add("captions")
    taken = [(int(match[2] or -1), name) for name, match in found if match[1] in words]
    return tuple(name for _, name in sorted(taken, key=lambda item: item[0]))


@lru_cache(maxsize=1024)
def audio_column(columns: tuple[str, ...]) -> str | None:
    """The column with the audio file, ``None`` if there is none."""
    return next((name for name in column_names.AUDIO if name in columns), None)


def sound_column(columns: tuple[str, ...]) -> str | None:
    """The column that says which sound a row is of: its audio file, or the id of a video."""
    video = column_names.VIDEO if column_names.VIDEO in columns else None
    return audio_column(columns) or video


def text_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns with captions, or else with labels, which a folder takes in their place."""
    labels = tuple(name for name in column_names.LABELS if name in columns)
    return caption_columns(columns) or labels


def row_audio(row: Mapping[str, object]) -> tuple[str, ...]:
    """The names that a row gives its audio, in the order of :data:`~.column_names.AUDIO`, each
    once; empty where it names none."""
    names = [row[name] for name in column_names.AUDIO if name in row]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name.strip()))


def is_known_column(name: str) -> bool:
    """Whether a column has a name that data sets use, as in a line of column names."""
    return name in _KNOWN or bool(_CAPTION.fullmatch(name))


def is_used_column(name: str) -> bool:
    """Whether a value may be read from a column of that name."""
    return name in column_names.USED or bool(_CAPTION.fullmatch(name))


def unused_caption_columns(columns: tuple[str, ...]) -> list[str]:
    """Columns that look as if they had captions and are not among :func:`caption_columns`."""
    taken = caption_columns(columns)
    return [
        name
        for name in columns
        if name not in taken
        and ("caption" in name or _CAPTION.fullmatch(name))
        and not _ABOUT_CAPTIONS.fullmatch(name)
    ]


def row_captions(row: Mapping[str, object]) -> list[str]:
    """The captions of a row, stripped and on one line; an empty one is an empty string. Of several
    columns, those that are blank are no captions where another one has something. ``nan``, ``N/A``
    and the like are blank.

    A JSON list gives its texts, and so does a list that was written into a CSV cell, in JSON's or
    Python's notation (``['a dog barks', 'a bark']``, numpy's without commas as well). A text that
    is both in a column without a number and in a numbered one beside it counts once.
    """
    columns = caption_columns(tuple(row))
    if len(columns) == 1:
        return _texts(row[columns[0]])
    texts = [text for column in columns for text in _texts(row[column])]
    if columns and columns[0] in column_names.CAPTIONS:
        alone = len(_texts(row[columns[0]]))
        texts = [text for text in texts[:alone] if text not in texts[alone:]] + texts[alone:]
    return [text for text in texts if text] or texts


def is_blank(text: str) -> bool:
    """Whether a cell has nothing, as pandas and spreadsheets write it too (``nan``, ``N/A``)."""
    return text.strip() in ("", *_BLANKS)


def cell_text(value: object) -> str:
    """What a cell has, stripped; empty where it has nothing, and ``0`` is something."""
    return cell_as_is(value).strip()


def cell_as_is(value: object) -> str:
    """What a cell has, with the blanks around it; empty where JSON has ``null``."""
    return "" if value is None else str(value)


def _texts(value: object) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    text = value.strip() if isinstance(value, str) else ""
    if is_blank(text):
        return [""]
    if text.startswith("[") and text.endswith("]"):
        listed = _listed(text)
        if listed is not None:
            return [_one_line(item.strip()) for item in listed]
    return [_one_line(text)]


def _one_line(text: str) -> str:
    return _LINE_BREAKS.sub(" ", text) if "\n" in text or "\r" in text else text


def _listed(text: str) -> list[str] | None:
    """The strings of a list in JSON's, Python's or numpy's notation, empty for its ``None`` or
    ``nan``; None for any other text."""
    try:
        items = parse_json(text)
    except ValueError:
        pass
    else:
        texts = ["" if _is_nothing(item) else item for item in items]
        return texts if all(isinstance(text, str) for text in texts) else None
    # By tokens, because Python would join the neighbours in numpy's ['a' 'b'].
    strings = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                item = ast.literal_eval(token.string)
                if not isinstance(item, str):
                    return None
                strings.append(item)
            elif token.string in _NOTHING:
                strings.append("")
            elif token.string.strip() not in ("[", "]", ",", ""):
                return None
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    return strings or None


def _is_nothing(item: object) -> bool:
    return item is None or (isinstance(item, float) and item != item)
