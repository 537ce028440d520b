"""Which rows belong together, from a file: by number, or by names as captions files have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from atr_moco_plugin.analysis.reading import load_npy
from atr_moco_plugin.data.tables.columns import (
    Row,
    audio_column,
    caption_columns,
    cell_text,
    row_captions,
)
from atr_moco_plugin.data.tables.rows import columns_of, read_rows
from atr_moco_plugin.data.tables.segments import fragment, segment_of
from atr_moco_plugin.errors import InputError, MissingFileError, listed
from atr_moco_plugin.evaluation.clip_names import ClipNames
from atr_moco_plugin.ids import normalize_caption

ROW_COLUMNS = ("audio_row", "text_row")
"""Columns of a table with row numbers, counted from 0."""


class Pairs(NamedTuple):
    """Pairs of rows.

    Attributes:
        rows: ``[P, 2]`` int64, a row of the first side and one of the second.
        notes: sentences on what was left out.
    """

    rows: Tensor
    notes: list[str]


class TextNames:
    """Rows of sentences by their text: as it stands, else as
    :func:`~atr_moco_plugin.ids.normalize_caption` reduces it. A text may have several rows.

    Args:
        texts: of all rows; empty where there is none, which is never found.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._exact: dict[str, list[int]] = {}
        self._reduced: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            if not text:
                continue
            self._exact.setdefault(text, []).append(row)
            self._reduced.setdefault(normalize_caption(text), []).append(row)

    def find(self, text: str) -> list[int]:
        """The rows with the text; empty where none has it."""
        return self._exact.get(text) or self._reduced.get(normalize_caption(text), [])


def read_pairs(path: str | Path, audio: Sequence[str] | None, text: Sequence[str] | None) -> Pairs:
    """Read which rows of two matrices belong together.

    Four forms: a ``.npy`` of integers ``[P, 2]``, or ``[M]`` with the first side's row of each row
    of the second; a table with the columns :data:`ROW_COLUMNS`; a table with columns ``audio`` and
    ``text`` of names, which any captions file is, with several captions a row too. A name is
    found as a clip in a file of judgements is
    (:class:`~atr_moco_plugin.evaluation.clip_names.ClipNames`), a sentence by its text.

    Args:
        path: the file.
        audio: names of the rows of the first side, empty for a row without one; None where none
            has one.
        text: those of the second.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it has none of these forms, names are given where the rows have none, or no
            pair is of rows that are there.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such file of pairs.")
    if path.suffix.lower() == ".npy":
        return Pairs(_numbers(path), [])
    columns = columns_of(path)
    if set(ROW_COLUMNS) <= set(columns):
        return Pairs(_numbered(path), [])
    if audio_column(columns) is None or not (caption_columns(columns)):
        raise InputError(
            f"{path}: has the columns {', '.join(map(repr, columns)) or 'none'}; pairs need "
            f"{' and '.join(map(repr, ROW_COLUMNS))}, or names in 'audio' and 'text' or as a "
            "captions file has them."
        )
    for what, names in (("first", audio), ("second", text)):
        if names is None:
            raise InputError(
                f"{path}: pairs names, but the rows of the {what} file of embeddings have none; "
                f"give the columns {' and '.join(map(repr, ROW_COLUMNS))} with row numbers."
            )
    return _named(path, audio or (), text or ())


def _numbers(path: Path) -> Tensor:
    array = load_npy(path)
    if array.dtype.kind not in "iu" or array.ndim == 0 or array.shape[1:] not in ((), (2,)):
        raise InputError(
            f"{path}: is {array.dtype} of shape {list(array.shape)}; pairs are integers [P, 2], or "
            "[M] with a row of the first side for each row of the second."
        )
    found = torch.from_numpy(array.astype(np.int64))
    return found if array.ndim == 2 else torch.stack([found, torch.arange(len(found))], dim=1)


def _numbered(path: Path) -> Tensor:
    pairs = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            pairs.append([int(str(row.get(column))) for column in ROW_COLUMNS])
        except ValueError:
            cells = " and ".join(repr(row.get(column)) for column in ROW_COLUMNS)
            raise InputError(
                f"{path}: row {number} has {cells}, expected two row numbers, counted from 0."
            ) from None
    if not pairs:
        raise InputError(f"{path}: has no pair; give a row for each.")
    return torch.tensor(pairs)


def _sound(row: Row) -> str:
    """What a row calls its sound; empty where it has none, as a row of JSON may."""
    column = audio_column(tuple(row))
    return "" if column is None else cell_text(row[column])


def _named(path: Path, audio: Sequence[str], text: Sequence[str]) -> Pairs:
    table = list(read_rows(path))
    # A sound may have several rows, such as one for each of its captions.
    same_name: dict[str, list[int]] = {}
    for number, name in enumerate(audio):
        same_name.setdefault(name, []).append(number)
    rows_of = list(same_name.values())
    clips = ClipNames(((name, name) for name in same_name), str(path), map(_sound, table))
    sentences = TextNames(text)
    pairs: list[list[int]] = []
    total = 0
    strange: list[str] = []
    for number, row in enumerate(table, start=1):
        name = _sound(row)
        # A row may be of a part of its file, whose embedding then has it in its name.
        part = fragment(segment_of(row, f"{path}: row {number}"))
        clip = clips.find(name + part) if part else None
        clip = clips.find(name) if clip is None else clip
        captions = [caption for caption in row_captions(row) if caption]
        total += len(captions)
        if clip is None:
            strange += [f"{name!r} (row {number})"] * len(captions)
            continue
        for caption in captions:
            rows = sentences.find(caption)
            if not rows:
                strange.append(f"{caption!r} (row {number})")
            pairs += [[sound, sentence] for sound in rows_of[clip] for sentence in rows]
    if not pairs:
        first = f", such as {listed(strange, 2)}" if strange else ""
        raise InputError(
            f"{path}: none of its {total:,} pairs is of rows in both files of embeddings{first}; "
            "take the file of the same recordings and sentences."
        )
    notes = []
    if strange:
        notes.append(
            f"{len(strange):,} of {total:,} pairs of {path.name} are of what has no embedding, "
            f"such as {listed(strange, 1)}, and are left out."
        )
    return Pairs(torch.tensor(pairs), notes)
