"""What every index refuses before it keeps or compares embeddings."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.bank import Bank
from atr_moco_plugin.search.store import Embedded, IndexInfo

OFF = 0.01
"""How far the length of a row, in float16, of a query, or a cosine may be off: far more than
rounding."""

_ROWS = 1000


def refuse_other(where: object, have: IndexInfo, want: IndexInfo) -> NoReturn:
    """Tell how an index differs from what is wanted.

    Args:
        where: address of the index.
        have: what made it.
        want: what was to be put in or asked.

    Raises:
        InputError: always.
    """
    if have.fingerprint != want.fingerprint:
        raise InputError(
            f"{where} was made with the model {have.model} (fingerprint {have.fingerprint[:12]}), "
            f"and this is {want.model} ({want.fingerprint[:12]}): give the model that made it, or "
            "another folder for an index of this one."
        )
    raise InputError(
        f"{where} has {_windows(have)}, and {_windows(want)} are wanted: give the same, or another "
        "folder for an index of these."
    )


def _windows(info: IndexInfo) -> str:
    return (
        f"windows of {info.window_seconds:g} s every {info.hop_seconds:g} s at "
        f"{info.sample_rate} Hz with {info.embed_dim} numbers each"
    )


def check_embedded(item: Embedded, width: int) -> None:
    """Refuse what would make the index contradict itself."""
    recording, spans, embeddings = item
    if spans.shape != (len(spans), 2) or embeddings.shape != (len(spans), width):
        raise ValueError(
            f"{recording.path}: spans {list(spans.shape)} and embeddings {list(embeddings.shape)} "
            f"must be [W, 2] and [W, {width}]"
        )
    if bool(recording.problem) == bool(len(spans)):
        raise ValueError(f"{recording.path}: it has either windows or a problem")
    if not np.isfinite(embeddings).all():
        raise InputError(
            f"the embedding of {recording.path} is no number: use --dtype float32, or another model"
        )
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if (np.abs(lengths - 1) > 1e-3).any():
        raise ValueError(f"{recording.path}: an embedding is not of length 1")


def check_bank(bank: Bank | None, width: int) -> None:
    """Refuse a bank by which no offset could be computed."""
    if bank is None:
        return
    shape = (bank.info.sentences, width)
    if bank.embeddings.shape != shape:
        raise ValueError(
            f"the bank's embeddings are {list(bank.embeddings.shape)}, and must be {list(shape)}"
        )
    lengths = np.linalg.norm(bank.embeddings.astype(np.float64), axis=1)
    if not (np.abs(lengths - 1) <= 1e-3).all():
        raise InputError(
            "an embedding of the bank is no number or not of length 1: use --dtype float32, or "
            "another model"
        )


def check_rows(matrix: NDArray[np.float16], rows: NDArray[np.int64]) -> None:
    """Compare the length of some rows, as they stand in a file, with 1; of very many, the first.

    Raises:
        FloatingPointError: where one has another length: a bad disk, or a file of zeros.
    """
    lengths = np.linalg.norm(matrix[rows[:_ROWS]].astype(np.float64), axis=1)
    if not (np.abs(lengths - 1) <= OFF).all():
        raise FloatingPointError("a row is not of length 1")


def check_queries(queries: NDArray[np.float32], width: int, k: int = 1) -> NDArray[np.float32]:
    """``[Q, width]`` unit-norm queries as float32; what cannot be asked is refused."""
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ValueError(f"queries are {list(queries.shape)}, and must be [Q, {width}]")
    if not np.isfinite(queries).all():
        raise ValueError("a query is no number")
    if k < 1:
        raise ValueError(f"k is {k}, and must be 1 or more")
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
    for length in lengths[np.abs(lengths - 1) > OFF][:1]:
        raise InputError(
            f"a query has the length {length:.3g}, expected 1, or its scores would be no cosines: "
            "divide it by its length; mean_embeddings of the retriever makes the mean of several "
            "from their sum"
        )
    return queries.astype(np.float32)
