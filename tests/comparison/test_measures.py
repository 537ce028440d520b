"""Figures under weights, against the figures of the same queries written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compared_runs import draw_run, measures_of

from atr_moco_plugin.comparison.measures import Measures, Ranks, Run
from atr_moco_plugin.evaluation.metrics import FIGURES, RetrievalMetrics


def plainly(run: Run, number: dict[str, np.ndarray]) -> dict[str, float]:
    """The figures where query q counts ``number[q]`` times, written out."""
    found = {"r_sum": 0.0}
    for way, (rank, precision) in run.items():
        rank, precision = (np.repeat(x, number[way].astype(int)) for x in (rank, precision))
        for k in (1, 5, 10):
            found[f"{way}_r{k}"] = 100 * float((rank <= k).mean())
            found["r_sum"] += found[f"{way}_r{k}"]
        found[f"{way}_map10"] = 100 * float(precision.mean())
        found[f"{way}_medr"] = float(np.median(rank))
    return found


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize(("clips", "captions"), [(2, 1), (7, 5), (20, 3)])
def test_weights_count_queries(clips: int, captions: int, joint: bool) -> None:
    rng = np.random.default_rng(clips)
    measures = measures_of(clips, captions, joint=joint)
    run = draw_run(measures, rng)
    for weights in measures.draws(20, rng):
        for row, figures in zip(weights, measures.figures(run, weights), strict=True):
            number = {way: row[cluster] for way, cluster in measures.cluster.items()}
            found = dict(zip(measures.names, figures, strict=True))
            assert found == pytest.approx(plainly(run, number))


def test_the_names_are_those_of_an_evaluation() -> None:
    assert {name for name in FIGURES if "skipped" not in name} == set(measures_of(3, 2).names)


def test_an_evaluations_figures() -> None:
    """The same figures as the metrics, from a matrix of scores."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 18, generator=generator)
    relevant = torch.arange(6)[:, None] == torch.arange(18) // 3
    metrics = RetrievalMetrics()
    metrics.update("a2t", scores, relevant)
    metrics.update("t2a", scores.T, relevant.T)
    run = {}
    for way, (rank, precision) in {
        way: ranks_of(*pair) for way, pair in _ways(scores, relevant)
    }.items():
        run[way] = Ranks(rank, precision)
    measures = measures_of(6, 3)
    found = dict(zip(measures.names, measures.figures(run, np.ones((1, 6)))[0], strict=True))
    expected = {name: value for name, value in metrics.compute().items() if name in found}
    assert found == pytest.approx(expected)


def _ways(
    scores: torch.Tensor, relevant: torch.Tensor
) -> list[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    return [("a2t", (scores, relevant)), ("t2a", (scores.T, relevant.T))]


def ranks_of(scores: torch.Tensor, relevant: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rank and AP@10 of each query, one after the other."""
    ranks, precisions = [], []
    for row, hits in zip(scores.tolist(), relevant.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda i: -row[i])
        places = [place for place, item in enumerate(order, 1) if hits[item]]
        ranks.append(places[0])
        found = [n / place for n, place in enumerate(places, 1) if place <= 10]
        precisions.append(sum(found) / min(10, len(places)))
    return np.array(ranks), np.array(precisions)


def test_exchanging_everything_turns_a_difference_round() -> None:
    rng = np.random.default_rng(3)
    measures = measures_of(9, 4)
    ours, base = draw_run(measures, rng), draw_run(measures, rng)
    none, all_of_them = np.zeros((1, 9)), np.ones((1, 9))
    plain = np.ones((1, 9))
    difference = measures.figures(ours, plain) - measures.figures(base, plain)
    np.testing.assert_allclose(measures.exchanged(ours, base, none), difference, atol=1e-12)
    np.testing.assert_allclose(measures.exchanged(ours, base, all_of_them), -difference, atol=1e-12)


def test_exchanging_some_clusters() -> None:
    """Against two runs that have exchanged what those clusters got."""
    rng = np.random.default_rng(4)
    measures = measures_of(8, 3)
    ours, base = draw_run(measures, rng), draw_run(measures, rng)
    for flips in measures.flips(10, rng):
        for row, found in zip(flips, measures.exchanged(ours, base, flips), strict=True):
            first, second = _exchanged(measures, ours, base, row)
            plain = np.ones((1, 8))
            expected = measures.figures(first, plain)[0] - measures.figures(second, plain)[0]
            np.testing.assert_allclose(found, expected, atol=1e-12)


def _exchanged(measures: Measures, ours: Run, base: Run, row: np.ndarray) -> tuple[Run, Run]:
    first, second = {}, {}
    for way, cluster in measures.cluster.items():
        given = row[cluster] == 1
        pairs = list(zip(ours[way], base[way], strict=True))
        first[way] = Ranks(*(np.where(given, theirs, own) for own, theirs in pairs))
        second[way] = Ranks(*(np.where(given, own, theirs) for own, theirs in pairs))
    return first, second


def test_draws_have_as_many_clusters_as_there_are() -> None:
    measures = measures_of(5, 2, joint=False)
    drawn = np.concatenate(list(measures.draws(30, np.random.default_rng(0))))
    assert drawn.shape == (30, 15)
    assert (drawn[:, :5].sum(axis=1) == 5).all() and (drawn[:, 5:].sum(axis=1) == 10).all()


def test_without_medians_and_with_one_direction() -> None:
    measures = Measures({"t2a": np.arange(4)}, (4,), medians=False)
    assert measures.names == ("t2a_r1", "t2a_r5", "t2a_r10", "t2a_map10")
