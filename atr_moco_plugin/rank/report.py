"""Rank report of an embedding matrix, beside the values for random unit vectors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

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
        random_baseline: the same measures for N random unit vectors of size d, centred likewise.
            Its ``count`` is a mean over draws and may be fractional.
        rows: N.
        dim: d.
        center: whether the mean row was removed.
        normalizer: ``"max"``, ``"sum"`` or ``"l2"``.
        threshold: what a normalised singular value has to exceed to be counted.
    """

    singular_values: Tensor
    normalized: Tensor
    random_baseline: RankMeasures
    rows: int
    dim: int
    center: bool
    normalizer: str
    threshold: float

    def measures(self) -> dict[str, float | None]:
        """The five measures by name, ``None`` for one that is not defined."""
        return _json_measures(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values; a measure that is not defined becomes ``None``."""
        return {
            "rows": self.rows,
            "dim": self.dim,
            "center": self.center,
            "normalizer": self.normalizer,
            "threshold": self.threshold,
            **self.measures(),
            "random_baseline": _json_measures(self.random_baseline),
            "singular_values": self.singular_values.tolist(),
            "normalized": self.normalized.tolist(),
        }


@torch.no_grad()
def rank_report(
    embeddings: Tensor,
    *,
    center: bool = False,
    normalizer: str = "max",
    threshold: float = 0.01,
) -> RankReport:
    """Singular values of an embedding matrix and the rank they give.

    Every measure grows with N even for noise, is fooled by rows that were never filled and by a
    common mean direction. So: pass valid rows only (``queue.valid[0]``), compare with
    ``random_baseline``, and look at both ``center`` settings. The rows are used as they are, not
    normalised. All is computed in float64.

    Args:
        embeddings: ``[N, d]``; N may be 0, which gives an empty spectrum and measures of 0.
        center: whether to subtract the mean row first.
        normalizer: ``"max"`` divides the singular values by the largest, ``"sum"`` by their sum,
            ``"l2"`` by their l2 norm.
        threshold: what the normalised values have to exceed to be counted.

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
    if embeddings.dim() != 2:
        raise ValueError(
            f"rank_report expects embeddings of shape [N, d], got {list(embeddings.shape)}."
        )
    rows, dim = embeddings.shape
    # One number tells of the whole matrix; of a sum that overflows the rows are looked at.
    finite = bool(embeddings.sum().isfinite())
    broken = 0 if finite else int((~embeddings.isfinite()).any(dim=1).sum())
    if broken:
        raise ValueError(
            f"{broken} of {rows} embedding rows are not finite; "
            "find the step that made them NaN or infinite, or drop them before the rank analysis."
        )
    return report_of_spectrum(
        singular_values(embeddings, center=center),
        rows,
        dim,
        center=center,
        normalizer=normalizer,
        threshold=threshold,
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


def _json_measures(measures: RankMeasures) -> dict[str, float | None]:
    names = ("count", "rankme", "stable_rank", "participation_ratio", "alpha_req")
    values = {name: getattr(measures, name) for name in names}
    return {name: None if math.isnan(value) else value for name, value in values.items()}
