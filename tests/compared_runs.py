"""Runs as the comparison sees them, drawn with a seed."""

from __future__ import annotations

import numpy as np

from atr_moco_plugin.comparison.measures import Measures, Ranks, Run


def measures_of(clips: int, captions: int, *, joint: bool = True, medians: bool = True) -> Measures:
    """Clips with so many captions each; apart where ``joint`` is not given."""
    owner = np.repeat(np.arange(clips), captions)
    if joint:
        return Measures({"a2t": np.arange(clips), "t2a": owner}, (clips,), medians)
    texts = clips + np.arange(clips * captions)
    return Measures({"a2t": np.arange(clips), "t2a": texts}, (clips, len(texts)), medians)


def draw_run(measures: Measures, rng: np.random.Generator, *, better: float = 0.0) -> Run:
    """Ranks of a run, alike within a cluster; larger ``better`` is better."""
    hardness = rng.normal(1.0, 1.0, measures.clusters) - better
    run = {}
    for way, cluster in measures.cluster.items():
        rank = 1 + np.exp(hardness[cluster] + rng.normal(0, 1, len(cluster))).astype(np.int64)
        run[way] = Ranks(rank, np.where(rank <= 10, 1 / rank, 0.0))
    return run
