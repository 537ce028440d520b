"""How much a correction gains over the plain cosines, query by query."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atr_moco_plugin.evaluation.bootstrap import LEVEL, SEED, ClusterDraws
from atr_moco_plugin.evaluation.metrics import MEANS, query_values
from atr_moco_plugin.evaluation.queries import SplitQueries
from atr_moco_plugin.evaluation.relevance import DIRECTIONS
from atr_moco_plugin.evaluation.rerank import DUAL
from atr_moco_plugin.evaluation.student import t_quantile

Gain = list[float]
"""Difference, and the ends of its interval, in percent."""


def gains(queries: SplitQueries, names: Sequence[str]) -> dict[str, dict[str, Gain]]:
    """Gains of systems over the dual encoder on the same queries.

    Both systems have easy and hard queries in common, so that the interval of the difference is
    much narrower than those of the two figures: it is a paired bootstrap over clips, with Student's
    t for the number of clips.

    Args:
        queries: what each query got, of ``dual`` and of each of ``names``.
        names: the systems.

    Returns:
        By system and figure (R@k and mAP@10 of both directions, in percentage points) the gain,
        and the lowest and highest that fit. A direction with a single cluster has none.
    """
    found: dict[str, dict[str, Gain]] = {name: {} for name in names}
    for turn, way in enumerate(DIRECTIONS):
        plain = queries.systems[way][DUAL.name]
        asked = plain.rank > 0
        numbers, cluster = queries.cluster[way][asked].unique(return_inverse=True)
        if len(numbers) < 2 or not names:
            continue
        before = query_values(plain)[asked]
        gained = torch.cat(
            [query_values(queries.systems[way][name])[asked] - before for name in names], dim=1
        )
        draws = ClusterDraws(len(numbers), seed=SEED + turn)
        shrunk = (1 - 1 / len(numbers)) ** 0.5
        half = draws.means(gained, cluster).std(dim=0) / shrunk
        half = half * t_quantile(0.5 + LEVEL / 2, len(numbers) - 1)
        mean = gained.mean(dim=0)
        ends = torch.stack([mean, mean - half, mean + half]).clamp(-1, 1)  # no gain is larger
        columns = iter(ends.mul(100).T.tolist())
        for name in names:
            for figure in MEANS:
                found[name][f"{way}_{figure}"] = [round(x, 4) for x in next(columns)]
    return found
