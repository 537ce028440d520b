"""What one set of embeddings is like: spectrum, uniformity, dimension, hubs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.analysis.angles import PrincipalAxes
from atr_moco_plugin.analysis.dimension import random_two_nn, two_nn
from atr_moco_plugin.analysis.neighbours import nearest
from atr_moco_plugin.analysis.sphere import random_uniformity
from atr_moco_plugin.evaluation.hubness import HUBNESS_K, Hubness, hubness, top_counts
from atr_moco_plugin.evaluation.metrics import query_blocks
from atr_moco_plugin.rank.measures import sample, uniformity
from atr_moco_plugin.rank.report import report_of_spectrum
from atr_moco_plugin.rank.spectrum import singular_values

NORMALIZER, THRESHOLD = "max", 0.01
"""How spectra are normalised and what counts, as in ``rank.jsonl``."""

QUERIES = 2048
"""Rows of which the two nearest of all rows are looked up, for the dimension."""

SAMPLE = 5000
"""Rows among which hubs are counted."""


def within(
    rows: Mapping[str, Tensor],
    axes: Mapping[str, PrincipalAxes],
    *,
    seed: int,
    notes: list[str],
) -> dict[str, Any]:
    """The measures of each side alone.

    Args:
        rows: name of a side -> ``[N, d]`` of length 1.
        axes: name of a side -> its principal axes.
        seed: of the subsets.
        notes: sentences are added here.

    Returns:
        ``rank``, ``uniformity``, ``dimension`` and ``hubness`` of
        :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    return {
        "rank": {
            "normalizer": NORMALIZER,
            "threshold": THRESHOLD,
            "sources": {name: _spectra(x, axes[name]) for name, x in rows.items()},
        },
        "uniformity": {name: _uniformity(x, seed) for name, x in rows.items()},
        "dimension": {name: _dimension(x, name, seed, notes) for name, x in rows.items()},
        "hubness": {name: _hubness(x, seed) for name, x in rows.items()},
    }


def _spectra(x: Tensor, axes: PrincipalAxes) -> dict[str, Any]:
    rows, dim = x.shape
    centered = torch.zeros(min(rows, dim), dtype=torch.float64)
    found = (axes.variances * rows).sqrt()
    centered[: len(found)] = found
    source: dict[str, Any] = {"rows": rows, "dim": dim}
    for kind, values in (("raw", singular_values(x)), ("centered", centered)):
        report = report_of_spectrum(
            values,
            rows,
            dim,
            center=kind == "centered",
            normalizer=NORMALIZER,
            threshold=THRESHOLD,
        )
        source[kind] = {
            **report.measures(),
            "random": report.random_baseline.measures(),
            "largest": float(values[0]),
            "spectrum": report.normalized.tolist(),
        }
    return source


def _uniformity(x: Tensor, seed: int) -> dict[str, Any]:
    return {
        "rows": min(len(x), QUERIES),
        "value": uniformity(x, max_rows=QUERIES, seed=seed),
        "random": random_uniformity(x.size(1)),
    }


_ROUNDING = 1e-5
"""Distance of two rows of length 1 below which they are one in two batches, in float32."""


def _dimension(x: Tensor, name: str, seed: int, notes: list[str]) -> dict[str, Any] | None:
    n = len(x)
    if n < 3:
        notes.append(f"{name}: {n} rows have no second neighbour, so there is no dimension.")
        return None
    first, second = nearest(x, sample(n, QUERIES, seed), 2).distances.T
    distinct = first > _ROUNDING
    equal = int((~distinct).sum())
    if equal:
        notes.append(
            f"{name}: {equal:,} of {len(first):,} rows have another row that is equal to them "
            "but for rounding; the dimension leaves them out, and of equal rows no search can tell "
            "which is right."
        )
    value = two_nn(first[distinct], second[distinct])
    if value is None:
        notes.append(f"{name}: too few different rows for a dimension.")
    return {
        "rows": len(first) - equal,
        "among": n,
        "equal": equal,
        "value": value,
        "random": random_two_nn(n, x.size(1), len(first)),
    }


def _hubness(x: Tensor, seed: int) -> dict[str, Any]:
    x = x[sample(len(x), SAMPLE, seed)]
    k = min(HUBNESS_K, len(x) - 1)
    return {"rows": len(x), "k": k, **_own_hubs(x, k), "random": _random_hubs(*x.shape, k)}


def _own_hubs(x: Tensor, k: int) -> Hubness:
    """Of rows whose k nearest are others of them."""
    counts = torch.zeros(len(x), dtype=torch.float64)
    wide = x.double().T
    for start, block in query_blocks(x, len(x)):
        cosines = (block.double() @ wide).float()
        own = torch.arange(len(block))
        cosines[own, start + own] = -torch.inf
        counts += top_counts(cosines, k)
    return hubness(counts)


@lru_cache(maxsize=16)
def _random_hubs(rows: int, dim: int, k: int) -> Hubness:
    generator = torch.Generator().manual_seed(0)
    return _own_hubs(normalize(torch.randn(rows, dim, generator=generator), dim=1), k)
