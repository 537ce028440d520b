"""The files that DCASE's task of language-based audio retrieval takes from a system."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.metrics import query_blocks
from atr_moco_plugin.evaluation.relevance import Direction

TOP = 10
"""Files that the years 2022 to 2024 list for a query."""


class SubmissionFile:
    """Writes the scores and the best files of text queries, block by block.

    Two files, since the years differ:

    * ``NAME.scores.csv``, DCASE 2025: a row for each query and a column for each file, in the
      cells the scores, larger is better. The first line is ``index`` and the names of the files.
    * ``NAME.files.csv``, DCASE 2022 to 2024: a row for each query with the :data:`TOP` best files
      under ``caption,fname_1,...,fname_10``, the best first.

    A query that comes again is left out: its row would be the same. Use it in a ``with``; the
    files are there when that ends without an error, and not before.

    Args:
        folder: where the files go; made when it is missing.
        name: of the system.
        files: the A files' names.

    Raises:
        InputError: when two files have one name.
    """

    def __init__(self, folder: Path, name: str, files: Sequence[str]) -> None:
        if len(set(files)) < len(files):
            twice = next(file for file in files if files.count(file) > 1)
            raise InputError(
                f"Two clips have the file name {twice!r}, but DCASE's files know a clip by its "
                "name alone; rename one."
            )
        self._folder = folder
        self._name = name
        self._files = list(files)
        self._written: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> SubmissionFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        top = min(TOP, len(self._files))
        self._scores = self._open("scores", ["index", *self._files])
        self._best = self._open("files", ["caption", *(f"fname_{i + 1}" for i in range(top))])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        for what in ("scores", "files"):
            temporary, path = self._paths(what)
            if kind is None:
                temporary.replace(path)
            else:
                temporary.unlink(missing_ok=True)

    def write(self, queries: Sequence[str], scores: Tensor) -> None:
        """Write the next n queries.

        Args:
            queries: n texts.
            scores: ``[n, A]``, any real dtype; of equal ones the earlier file is the better.
        """
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :TOP].tolist()
        for query, row, best in zip(queries, scores.tolist(), order, strict=True):
            if query in self._written:
                continue
            self._written.add(query)
            # Nine digits give every float32 back.
            self._scores.writerow([query, *(f"{score:.9g}" for score in row)])
            self._best.writerow([query, *(self._files[item] for item in best)])

    def _open(self, what: str, header: Iterable[str]) -> Any:
        temporary, _ = self._paths(what)
        file = temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace")
        writer = csv.writer(self._stack.enter_context(file))
        writer.writerow(header)
        return writer

    def _paths(self, what: str) -> tuple[Path, Path]:
        path = self._folder / f"{self._name}.{what}.csv"
        return path.with_name(f".{path.name}.partial"), path


class Submissions:
    """Writes a :class:`SubmissionFile` for each of some systems, named as ``t2a_SYSTEM``.

    Pass it as ``on_scores`` to :func:`~atr_moco_plugin.evaluation.retrieval.rank_queries`,
    inside of a ``with``.

    Args:
        folder: where the files go.
        systems: names such as ``dual`` or ``reranked_k64``.
        captions: the C queries.
        files: the A files' names.
    """

    def __init__(
        self, folder: Path, systems: Sequence[str], captions: Sequence[str], files: Sequence[str]
    ) -> None:
        self._captions = captions
        self._of = {name: SubmissionFile(folder, f"t2a_{name}", files) for name in systems}
        self._stack = ExitStack()

    def __enter__(self) -> Submissions:
        for file in self._of.values():
            self._stack.enter_context(file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, value, traceback)

    def __call__(
        self, direction: Direction, system: str, start: int, scores: Tensor, relevant: Tensor
    ) -> None:
        """Write a block of queries; arguments as in ``rank_queries``."""
        if direction == "t2a" and system in self._of:
            self._of[system].write(self._captions[start : start + len(scores)], scores)


def write_submission(
    folder: str | Path,
    name: str,
    queries: Sequence[str],
    files: Sequence[str],
    text: Tensor,
    audio: Tensor,
) -> None:
    """Write both files of :class:`SubmissionFile` from embeddings, as for DCASE's blind set.

    Args:
        folder: where they go.
        name: of the system.
        queries: the C queries.
        files: the A files' names.
        text: ``[C, d]`` embeddings of the queries, unit-norm.
        audio: ``[A, d]`` embeddings of the files, unit-norm.

    Raises:
        InputError: when the numbers differ, an embedding is not finite or not of length 1, or two
            files have one name.
    """
    for what, names, rows in (("queries", queries, text), ("files", files, audio)):
        if rows.dim() != 2 or len(names) != len(rows):
            raise InputError(
                f"There are {len(names):,} {what}, but their embeddings have the shape "
                f"{list(rows.shape)}; give one row for each."
            )
        if not bool(rows.isfinite().all()):
            raise InputError(f"An embedding of the {what} is not finite; embed them again.")
        # In float16 a length of 1 is off by less than that.
        lengths = torch.linalg.vector_norm(rows.double(), dim=1)
        off = ((lengths - 1).abs() > 2e-3).nonzero().flatten()
        if len(off):
            raise InputError(
                f"Row {int(off[0])} of the embeddings of the {what}, counted from 0, has the "
                f"length {float(lengths[off[0]]):.4g}, expected 1, since files are ranked by "
                "cosine: divide each row by its length."
            )
    if text.size(1) != audio.size(1):
        raise InputError(
            f"The queries' embeddings have {text.size(1)} numbers, the files' {audio.size(1)}; "
            "take both from one model."
        )
    with SubmissionFile(Path(folder), name, files) as file, torch.no_grad():
        for start, block in query_blocks(text, max(len(files), 1)):
            scores = (block.double() @ audio.double().T).float()
            file.write(queries[start : start + len(block)], scores)
