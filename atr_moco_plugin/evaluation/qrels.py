"""Relevance judgements from a file: which clips answer a sentence, and how well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.data.retrieval_set import RetrievalSet
from atr_moco_plugin.errors import InputError, MissingFileError, listed
from atr_moco_plugin.evaluation.clip_names import ClipNames
from atr_moco_plugin.evaluation.qrels_files import (
    TREC_SUFFIXES,
    Judgement,
    read_table,
    read_trec,
)
from atr_moco_plugin.evaluation.trec import caption_ids, trec_id
from atr_moco_plugin.ids import normalize_caption


class Qrels(NamedTuple):
    """Judgements of Q captions as queries, and A clips as items.

    Attributes:
        name: of the file.
        queries: ``[Q]`` int64, ascending: the numbers of the captions that were judged.
        starts: ``[Q + 1]`` int64: where the judgements of each query begin in the next two.
        items: ``[P]`` int64, the numbers of the judged clips.
        grades: ``[P]`` int64, 0 for irrelevant.
        clips: A. A clip that is not judged is irrelevant.
    """

    name: str
    queries: Tensor
    starts: Tensor
    items: Tensor
    grades: Tensor
    clips: int

    @property
    def relevant(self) -> Tensor:
        """``[Q]`` int64: how many clips are relevant to each query."""
        ends = torch.nn.functional.pad((self.grades > 0).cumsum(dim=0), (1, 0))[self.starts]
        return ends.diff()

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """First and last + 1 of the judged queries among the captions ``start`` to ``stop``."""
        first, last = torch.searchsorted(self.queries, torch.tensor([start, stop])).tolist()
        return first, last

    def block(self, first: int, last: int) -> Tensor:
        """``[last - first, A]`` int64: grades of all clips for some of the judged queries."""
        starts = self.starts[first : last + 1]
        judged = slice(int(starts[0]), int(starts[-1]))
        rows = torch.repeat_interleave(torch.arange(last - first), starts.diff())
        grades = torch.zeros(last - first, self.clips, dtype=torch.int64)
        grades[rows, self.items[judged]] = self.grades[judged]
        return grades


def read_qrels(path: str | Path, retrieval_set: RetrievalSet) -> Qrels:
    """Read judgements for the captions and clips of a split.

    ``docs/graded.md`` shows the three formats: DCASE's table with a list of files in each row, a
    table with a grade in each row, and TREC's qrels with the ids of ``trec/``. A sentence is found
    by its text as it stands, else as :func:`~atr_moco_plugin.ids.normalize_caption` reduces it; of
    several captions of one spelling the first is asked, since all rank the same. A clip is found by
    its key, else by its file name, else by that without its suffix.

    Args:
        path: the file.
        retrieval_set: clips and captions of the split that is evaluated.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if a column is missing; a query or a clip is not of the split; a query may be
            captions of two spellings, stands in two rows with other files, or a pair with two
            grades; a grade is no whole number of 0 or more; nothing is relevant.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such file of relevance judgements.")
    if path.suffix.lower() in TREC_SUFFIXES:
        found = _numbered_ids(path, retrieval_set)
    else:
        found = _numbered_texts(path, retrieval_set)
    grades: dict[int, dict[int, int]] = {}
    rows: dict[int, str] = {}
    for query, items, line in found:
        known = grades.setdefault(query, {})
        if line.whole and query in rows and known.keys() != set(items):
            raise InputError(
                f"{path}: {rows[query]} and {line.row} give {line.query!r} different files; write "
                "all files of a query into one row."
            )
        rows.setdefault(query, line.row)
        for item in items:
            if known.setdefault(item, line.grade) != line.grade:
                clip = retrieval_set.clips[item].key
                raise InputError(
                    f"{path}: {line.row} gives {clip!r} the grade {line.grade} for "
                    f"{line.query!r}, an earlier one {known[item]}; keep one of them."
                )
    if not any(grade for of_query in grades.values() for grade in of_query.values()):
        raise InputError(
            f"{path}: no clip is relevant to any query; grades of 1 or more say that one is."
        )
    queries = sorted(grades)
    counts = torch.tensor([0, *(len(grades[query]) for query in queries)])
    return Qrels(
        name=path.name,
        queries=torch.tensor(queries),
        starts=counts.cumsum(dim=0),
        items=torch.tensor([item for query in queries for item in grades[query]]),
        grades=torch.tensor([grade for query in queries for grade in grades[query].values()]),
        clips=len(retrieval_set.clips),
    )


def write_graded_qrels(
    folder: Path, qrels: Qrels, clips: Sequence[str], captions: Sequence[str]
) -> None:
    """Write ``t2a_graded.qrels``, a line ``query 0 item grade`` for each judged pair.

    Args:
        folder: where it goes; made when it is missing.
        qrels: the judgements.
        clips: the A clips' ids.
        captions: the C captions' ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    queries = torch.repeat_interleave(qrels.queries, qrels.starts.diff())
    triples = zip(queries.tolist(), qrels.items.tolist(), qrels.grades.tolist(), strict=True)
    with (folder / "t2a_graded.qrels").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{captions[q]} 0 {clips[item]} {grade}\n" for q, item, grade in triples)


_Numbered = tuple[int, list[int], Judgement]
"""A caption's number, clips' numbers, and the line that they are from."""


def _numbered_texts(path: Path, retrieval_set: RetrievalSet) -> list[_Numbered]:
    exact: dict[str, int] = {}
    reduced: dict[str, list[int]] = {}
    for number, text in enumerate(retrieval_set.captions):
        if text not in exact:
            exact[text] = number
            reduced.setdefault(normalize_caption(text), []).append(number)
    lines = list(read_table(path))
    asked = (name for line in lines for name in line.files)
    clips = ClipNames.of(retrieval_set.clips, str(path), asked)

    def query(line: Judgement) -> int | None:
        literal = exact.get(line.query.strip())
        if literal is not None:
            return literal
        meant = reduced.get(normalize_caption(line.query), [])
        if len(meant) > 1:
            first, second = (retrieval_set.captions[number] for number in meant[:2])
            raise InputError(
                f"{path}: {line.row} asks for {line.query!r}, which may be the caption {first!r} "
                f"or {second!r}; write it as the split has it."
            )
        return next(iter(meant), None)

    return _numbered(path, lines, [query(x) for x in lines], clips.find)


def _numbered_ids(path: Path, retrieval_set: RetrievalSet) -> list[_Numbered]:
    keys = [clip.key for clip in retrieval_set.clips]
    clips = {trec_id(key): number for number, key in enumerate(keys)}
    ids = caption_ids(keys, retrieval_set.caption_to_audio, len(retrieval_set.captions))
    captions = {name: number for number, name in enumerate(ids)}
    lines = list(read_trec(path))
    return _numbered(path, lines, [captions.get(x.query) for x in lines], clips.get)


def _numbered(
    path: Path,
    lines: Sequence[Judgement],
    queries: Sequence[int | None],
    find: Callable[[str], int | None],
) -> list[_Numbered]:
    """The lines by numbers.

    Raises:
        InputError: naming the first queries and files that the split has not.
    """
    if not lines:
        raise InputError(f"{path}: has no row; each says which clips are relevant to a query.")
    strange = [f"{x.query!r} ({x.row})" for x, q in zip(lines, queries, strict=True) if q is None]
    if strange:
        raise InputError(
            f"{path}: {len(strange):,} of {len(lines):,} rows ask for what is no caption of this "
            f"split, such as {listed(strange, 2)}; take the file of this split, or remove the rows."
        )
    found: list[_Numbered] = []
    for line, query in zip(lines, queries, strict=True):
        assert query is not None
        items = [find(name) for name in line.files]
        for name, item in zip(line.files, items, strict=True):
            if item is None:
                strange.append(f"{name!r} ({line.row})")
        found.append((query, [item for item in items if item is not None], line))
    if strange:
        total = sum(len(line.files) for line in lines)
        raise InputError(
            f"{path}: {len(strange):,} of {total:,} judged clips are not in this split, such as "
            f"{listed(strange, 2)}; take the file of this split, or remove them."
        )
    return found
