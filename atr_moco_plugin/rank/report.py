"""Rank report of an embedding matrix, beside the values for random unit vectors."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from atr_moco_plugin.rank.random_vectors import random_baseline
from atr_moco_plugin.rank.spectrum import (
    RankMeasures,
    normalize,
    singular_values,
    spectrum_measures,
)


@dataclass(frozen=True, eq=False)
class RankReport(RankMeasures):
    """Spectrum and rank measures of an ``[N, d]`` embedding matrix.

    The measures themselves (``count``, ``rankme``, ``stable_rank``, ``participation_ratio``,
    ``alpha_req``) are described at :class:`~atr_moco_plugin.rank.spectrum.RankMeasures`.

    Attributes:
        singular_values: ``[min(N, d)]`` float32, descending, on the CPU.
        normalized: ``[min(N, d)]`` float32, the singular values divided as ``normalizer`` says.
        random_baseline: the same measures for N random unit vectors of size d, centred if the
            matrix was. Its ``count`` is a mean over draws and may be fractional.
        rows: N.
        dim: d.
        center: whether the mean row was removed.
        normalizer: ``"max"``, ``"sum"`` or ``"l2"``.
        threshold: a normalised singular value above it is counted.
    """

    singular_values: Tensor
    normalized: Tensor
    random_baseline: RankMeasures
    rows: int
    dim: int
    center: bool
    normalizer: str
    threshold: float


@torch.no_grad()
def rank_report(
    embeddings: Tensor,
    *,
    center: bool = False,
    normalizer: str = "max",
    threshold: float = 0.01,
) -> RankReport:
    """Singular values of an embedding matrix and the rank they give.

    Three things mislead every measure: it grows with N even for noise, it counts rows that were
    never filled, and it hides behind a mean direction that all rows share. So compare with
    ``random_baseline``, pass valid rows only (``queue.valid[0]``), and look at both ``center``
    settings. The rows are used as they are, not normalised, and everything is computed in float64.

    Args:
        embeddings: ``[N, d]``; N may be 0, which gives an empty spectrum and measures of 0.
        center: whether to subtract the mean row first.
        normalizer: ``"max"`` divides the singular values by the largest, ``"sum"`` by their sum,
            ``"l2"`` by their l2 norm.
        threshold: a normalised singular value above it is counted.

    Raises:
        ValueError: when ``embeddings`` is not a matrix or has rows that are not finite, and for
            an unknown normaliser.

    Example:
        >>> report = rank_report(torch.eye(4, 8))
        >>> report.count, round(report.rankme, 3), round(report.stable_rank, 3)
        (4, 4.0, 4.0)
        >>> round(rank_report(torch.eye(4, 8), center=True).rankme, 3)
        3.0
    """
    check_matrix(embeddings)
    rows, dim = embeddings.shape
    return report_of_spectrum(
        singular_values(embeddings, center=center),
        rows,
        dim,
        center=center,
        normalizer=normalizer,
        threshold=threshold,
    )


def check_matrix(embeddings: Tensor) -> None:
    """Refuse anything but a matrix of finite rows.

    Raises:
        ValueError: with the shape, or with the number of rows that are not finite.
    """
    if embeddings.dim() != 2:
        raise ValueError(
            f"rank_report expects embeddings of shape [N, d], got {list(embeddings.shape)}."
        )
    # A finite sum has finite terms. The sum of finite terms may overflow, so then count rows.
    finite = bool(embeddings.sum().isfinite())
    broken = 0 if finite else int((~embeddings.isfinite()).any(dim=1).sum())
    if broken:
        raise ValueError(
            f"{broken} of {len(embeddings)} embedding rows are not finite; "
            "find the step that made them NaN or infinite, or drop them before the rank analysis."
        )


def report_of_spectrum(
    values: Tensor, rows: int, dim: int, *, center: bool, normalizer: str, threshold: float
) -> RankReport:
    """The report of a matrix whose singular values are known.

    Args:
        values: ``[min(N, d)]`` float64, descending, of the centred matrix where ``center`` is set.
        rows: N.
        dim: d.
        center: see :func:`rank_report`.
        normalizer: see :func:`rank_report`.
        threshold: see :func:`rank_report`.

    Raises:
        ValueError: for an unknown normaliser.
    """
    values = values.cpu()
    measures = spectrum_measures(values, normalizer=normalizer, threshold=threshold)
    return RankReport(
        **asdict(measures),
        singular_values=values.float(),
        normalized=normalize(values, normalizer).float(),
        random_baseline=random_baseline(
            rows, dim, center=center, normalizer=normalizer, threshold=threshold
        ),
        rows=rows,
        dim=dim,
        center=center,
        normalizer=normalizer,
        threshold=threshold,
    )
