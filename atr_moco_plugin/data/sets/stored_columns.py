"""The columns of a folder of Hugging Face's ``datasets``: which are read, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from atr_moco_plugin.data.sets.label_captions import label_columns
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.column_names import column_name
from atr_moco_plugin.data.tables.columns import Row, caption_columns
from atr_moco_plugin.errors import InputError


def find_columns(root: Path, features: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The column of the audio, and those of captions or labels in lower case.

    Args:
        root: the folder, for messages.
        features: column name to its type.

    Raises:
        InputError: if there is none of a kind, several of audio, or two that differ in capitals.
    """
    audio = [name for name, kind in features.items() if _holds_audio(kind)]
    lower = [column_name(name) for name in features if name not in audio]
    texts = [*caption_columns(tuple(lower))] or [x for x in column_names.LABELS if x in lower]
    read = (*texts, column_names.CLIP_ID, *column_names.SPLITS, *column_names.RECORDINGS)
    if twice := [name for name in read if lower.count(name) > 1]:
        same = [name for name in features if column_name(name) == twice[0] and name not in audio]
        raise InputError(
            f"{root}: has the columns {' and '.join(map(repr, same))}, which differ in capitals "
            "alone, or in underscores: rename or remove all but one"
        )
    if len(audio) == 1 and texts:
        return audio[0], texts
    if len(audio) > 1:
        raise InputError(
            f"{root}: has {len(audio)} columns of audio, {', '.join(audio)}; remove all but one"
        )
    what = "no column with captions" if audio else "no column of the type Audio"
    wanted = ", ".join((*column_names.CAPTIONS, *column_names.LABELS))
    raise InputError(
        f"{root}: has {what} (its columns are {', '.join(features)[:200]}); "
        + (f"call it one of {wanted}" if audio else "cast it with `cast_column(name, Audio())`")
    )


def stored_labels(root: Path, tables: Mapping[str, Any]) -> list[str]:
    """The columns of labels of all tables that have no captions, best first.

    Raises:
        InputError: if no label has a letter.
    """
    without = []
    for table in tables.values():
        _, texts = find_columns(root, table.features)
        if not caption_columns(tuple(texts)):
            named = [name for name in table.column_names if column_name(name) in texts]
            without.append(stored_rows(table.select_columns(named)))
    return label_columns(str(root), chain.from_iterable(without))


def stored_rows(table: Any) -> Iterator[Row]:
    """The rows of a table as :func:`~.rows.read_rows` has them, without their audio; labels by
    their names."""
    kinds = table.features
    names = [name for name, kind in kinds.items() if not _holds_audio(kind)]
    for row in table.select_columns(names):
        yield {column_name(name): _named(kinds[name], value) for name, value in row.items()}


def _named(kind: Any, value: Any) -> object:
    """The name of a label that is a number, also in a list; ``None`` for -1, which is no label."""
    if isinstance(value, list):
        inner = kind[0] if isinstance(kind, list) else getattr(kind, "feature", None)
        return [_named(inner, item) for item in value]
    if hasattr(kind, "int2str") and isinstance(value, int):
        return kind.int2str(value) if value >= 0 else None
    return value


def _holds_audio(kind: Any) -> bool:
    """Whether a column is of the type ``Audio``, or bytes and a path as that is stored."""
    return type(kind).__name__ == "Audio" or (
        isinstance(kind, dict) and {"bytes", "path"} == set(kind)
    )
