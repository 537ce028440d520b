"""What retrieval metrics are for random scores, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.metrics import CUTOFFS, r_sum
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, Relevance


@torch.no_grad()
def chance_metrics(relevance: Relevance) -> dict[str, float]:
    """Expected figures of :class:`~atr_moco_plugin.evaluation.metrics.RetrievalMetrics` at random.

    Scores are independent and continuous, so all orders are equally likely. With n items of which
    R are relevant, a query is missed among the first k with the hypergeometric probability
    ``C(n - R, k) / C(n, k)``, and the expected AP@10 is
    ``R / (n min(10, R)) * sum_{p=1}^{min(10, n)} (1 + (p - 1)(R - 1)/(n - 1)) / p``. The median
    rank is that of the rank distribution averaged over the queries: the smallest rank that half
    of them reach.

    Args:
        relevance: of A clips and C texts.

    Returns:
        The keys of :data:`~atr_moco_plugin.evaluation.metrics.FIGURES`, R@k and mAP@10 in percent.

    Raises:
        ValueError: when no pair is relevant.

    Example:
        >>> from atr_moco_plugin.evaluation.relevance import RelevanceMatrix
        >>> round(chance_metrics(RelevanceMatrix(torch.eye(20, dtype=torch.bool)))["t2a_r5"], 3)
        25.0
    """
    clips, captions = relevance.shape
    metrics: dict[str, float] = {}
    for direction, counts, items in zip(
        DIRECTIONS, relevance.counts(), (captions, clips), strict=True
    ):
        if not bool(counts.any()):
            raise ValueError("Chance needs at least one relevant pair.")
        expected = _direction(counts.cpu(), items)
        metrics |= {f"{direction}_{name}": value for name, value in expected.items()}
    return metrics | {"r_sum": r_sum(metrics)}


def _direction(relevant: Tensor, items: int) -> dict[str, float]:
    counts, queries = torch.unique(relevant[relevant > 0], return_counts=True)
    share = queries.double() / queries.sum()
    hit = share @ _hit_probability(counts, items)
    metrics = {f"r{k}": 100 * float(hit[min(k, items) - 1]) for k in CUTOFFS}
    # Half is reached exactly at even numbers of items, where rounding must not decide.
    metrics["medr"] = float(1 + int((hit < 0.5 - 1e-9).sum()))
    metrics["map10"] = 100 * float(share @ _average_precision(counts.double(), items))
    metrics["skipped"] = float((relevant == 0).sum())
    return metrics


def _hit_probability(counts: Tensor, items: int) -> Tensor:
    """``[len(counts), items]``: probability that one of R relevant items is in the first k."""
    drawn = torch.arange(items, dtype=torch.float64)
    # Missed k + 1 times in a row: the product of (n - R - i) / (n - i).
    miss = (items - counts[:, None] - drawn).clamp_min(0) / (items - drawn)
    return 1 - miss.cumprod(dim=1)


def _average_precision(counts: Tensor, items: int) -> Tensor:
    """``[len(counts)]``: expected AP@10."""
    place = torch.arange(1, min(10, items) + 1, dtype=torch.float64)
    before = (place - 1) * (counts[:, None] - 1) / max(items - 1, 1)
    return counts / items / counts.clamp_max(10) * ((1 + before) / place).sum(dim=1)
