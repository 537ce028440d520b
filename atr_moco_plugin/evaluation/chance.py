"""What retrieval metrics are for random scores, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.metrics import CUTOFFS
from atr_moco_plugin.evaluation.relevance import Relevance, RelevanceMatrix


@torch.no_grad()
def chance_metrics(relevant: Tensor) -> dict[str, float]:
    """Expected figures of :func:`~atr_moco_plugin.evaluation.metrics.metrics_from` at random.

    Scores are independent and continuous, so all orders are equally likely. With n items of which
    R are relevant, a query is missed among the first k with the hypergeometric probability
    ``C(n - R, k) / C(n, k)``, and the expected AP@10 is
    ``R / (n min(10, R)) * sum_{p=1}^{min(10, n)} (1 + (p - 1)(R - 1)/(n - 1)) / p``. The median
    rank is that of the rank distribution averaged over the queries: the smallest rank that half
    of them reach.

    Args:
        relevant: ``[A, C]`` bool, clips by texts.

    Returns:
        The keys of ``metrics_from``, R@k and mAP@10 in percent.

    Raises:
        ValueError: when ``relevant`` is not a bool matrix or no pair is relevant.

    Example:
        >>> round(chance_metrics(torch.eye(20, dtype=torch.bool))["t2a_r5"], 3)
        25.0
    """
    if relevant.dim() != 2 or relevant.dtype != torch.bool or not bool(relevant.any()):
        raise ValueError(
            "chance_metrics expects a bool matrix [A, C] with at least one relevant pair, "
            f"got {relevant.dtype} {list(relevant.shape)}."
        )
    return chance_of(RelevanceMatrix(relevant))


def chance_of(relevance: Relevance) -> dict[str, float]:
    """:func:`chance_metrics` of a relevance that need not exist as a matrix.

    Args:
        relevance: A clips and C captions, at least one pair of them relevant.
    """
    metrics: dict[str, float] = {}
    clips, captions = relevance.shape
    for way, relevant_items, items in zip(("a2t", "t2a"), relevance.counts(), (captions, clips)):
        expected = _direction(relevant_items.cpu(), items)
        metrics |= {f"{way}_{name}": value for name, value in expected.items()}
    metrics["r_sum"] = sum(metrics[f"{way}_r{k}"] for way in ("a2t", "t2a") for k in CUTOFFS)
    return metrics


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
