"""The bootstrap over clusters against slow and obvious ones, and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.evaluation.bootstrap import (
    ClusterDraws,
    mean_intervals,
    score_interval,
)
from atr_moco_plugin.evaluation.student import t_quantile


def drawn_queries(draws: ClusterDraws, cluster: Tensor) -> list[list[int]]:
    """Numbers of the queries in each replicate, one by one."""
    of_cluster = [torch.where(cluster == c)[0].tolist() for c in range(draws.clusters)]
    return [
        [q for c, times in enumerate(row) for q in of_cluster[c] * times]
        for row in draws.counts.tolist()
    ]


@st.composite
def clustered(draw: st.DrawFn) -> tuple[Tensor, torch.Generator]:
    """Clusters of one to six queries, in any order."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    cluster = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return cluster[torch.randperm(len(cluster), generator=generator)], generator


@settings(max_examples=30, deadline=None)
@given(clustered())
def test_means_are_those_of_the_drawn_queries(case: tuple[Tensor, torch.Generator]) -> None:
    cluster, generator = case
    values = torch.rand(len(cluster), 3, generator=generator, dtype=torch.float64)
    counted = torch.rand(len(cluster), 3, generator=generator) < 0.8
    counted[0] = True
    draws = ClusterDraws(int(cluster.max()) + 1, replicates=7, seed=3)
    found = draws.means(values, cluster, counted)
    everything = draws.means(values, cluster)
    for row, queries in enumerate(drawn_queries(draws, cluster)):
        assert everything[row].tolist() == pytest.approx(values[queries].mean(dim=0).tolist())
        for column in range(3):
            kept = [q for q in queries if counted[q, column]]
            kept = kept or torch.where(counted[:, column])[0].tolist()
            assert float(found[row, column]) == pytest.approx(float(values[kept, column].mean()))


@settings(max_examples=60, deadline=None)
@given(clustered(), st.sampled_from([3, 40, 100_000]))
def test_medians_are_those_of_the_drawn_queries(
    case: tuple[Tensor, torch.Generator], most: int
) -> None:
    cluster, generator = case
    ranks = torch.randint(1, most + 1, (len(cluster),), generator=generator)
    draws = ClusterDraws(int(cluster.max()) + 1, replicates=9, seed=1)
    expected = [np.median(ranks[queries]) for queries in drawn_queries(draws, cluster)]
    # So few clusters that nothing is cut off at four standard errors.
    assert draws.medians(ranks, cluster).tolist() == expected


def test_the_ends_of_large_medians_are_not_cut_off() -> None:
    generator = torch.Generator().manual_seed(0)
    cluster = torch.arange(2_000) // 4
    ranks = torch.randn(500, generator=generator).repeat_interleave(4)
    ranks = (100 * (ranks + torch.randn(2_000, generator=generator)).exp()).long() + 1
    draws = ClusterDraws(500, replicates=400)
    found = draws.medians(ranks, cluster).sort().values
    expected = sorted(float(np.median(ranks[x])) for x in drawn_queries(draws, cluster))
    assert found.tolist() == expected


def test_draws_are_as_many_as_clusters_and_follow_the_seed() -> None:
    one, again, other = (ClusterDraws(40, replicates=50, seed=s).counts for s in (5, 5, 6))
    assert one.shape == (50, 40) and one.sum(dim=1).tolist() == [40] * 50
    assert torch.equal(one, again) and not torch.equal(one, other)
    many = ClusterDraws(50, replicates=4_000).counts.double()
    # Of a multinomial: mean 1, variance 1 - 1/N.
    assert float(many.mean(dim=0).var()) < 1e-3
    assert float(many.var(dim=0).mean()) == pytest.approx(0.98, abs=0.01)


def test_blocks_of_replicates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(90, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cluster = torch.arange(90) // 3
    whole = ClusterDraws(30, replicates=64)
    monkeypatch.setattr("atr_moco_plugin.evaluation.bootstrap._BLOCK_ELEMENTS", 7 * 30)
    parts = ClusterDraws(30, replicates=64)
    assert torch.equal(whole.counts, parts.counts)
    torch.testing.assert_close(whole.means(values, cluster), parts.means(values, cluster))


def test_captions_of_one_clip_are_no_more_evidence_than_one() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = (torch.rand(300, generator=generator) < 0.3).double()[:, None]
    once = mean_intervals(hits, torch.arange(300))
    five_times = mean_intervals(hits.repeat_interleave(5, dim=0), torch.arange(1_500) // 5)
    alone = mean_intervals(hits.repeat_interleave(5, dim=0), torch.arange(1_500))
    assert five_times is not None and once is not None and alone is not None
    # Up to what 1,000 replicates say of a standard error.
    assert five_times[0] == pytest.approx(once[0], abs=0.005)
    wide, narrow = (ends[0][1] - ends[0][0] for ends in (five_times, alone))
    assert wide / narrow == pytest.approx(5**0.5, rel=0.06)


def test_independent_queries_have_wilsons_interval() -> None:
    stats = pytest.importorskip("scipy.stats")
    for hits, n in ((15, 300), (150, 300), (297, 300)):
        values = (torch.arange(n) < hits).double()[:, None]
        ((low, high),) = mean_intervals(values, torch.arange(n), replicates=20_000) or ()
        wilson = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert (low, high) == pytest.approx((wilson.low, wilson.high), abs=0.003)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.01, 0.99), st.floats(0.001, 0.05), st.integers(2, 500), st.sampled_from([0.9, 0.99])
)
def test_the_ends_are_t_standard_errors_away(
    mean: float, error: float, clusters: int, level: float
) -> None:
    """Each end m solves (mean - m)^2 = t^2 m (1 - m) / n."""
    replicates = torch.tensor([[mean - error], [mean + error]], dtype=torch.float64)
    low, high = score_interval(
        torch.tensor([mean], dtype=torch.float64), replicates, clusters, level=level
    )
    n = mean * (1 - mean) / (2 * error**2 * clusters / (clusters - 1))
    t = t_quantile(0.5 + level / 2, clusters - 1)
    assert 0 <= float(low) <= mean <= float(high) <= 1
    for end in (float(low), float(high)):
        assert (mean - end) ** 2 == pytest.approx(t**2 * end * (1 - end) / n, rel=1e-6, abs=1e-9)


def test_nothing_but_hits_is_not_certain() -> None:
    for value in (0.0, 1.0):
        values = torch.full((60, 1), value)
        ((low, high),) = mean_intervals(values, torch.arange(60) // 5) or ()
        # Twelve clips: a true recall of 0.7 would give twelve hits of twelve 1.4 % of the time.
        assert (low, high) == pytest.approx((0.712, 1.0) if value else (0.0, 0.288), abs=2e-3)


def test_equal_clips_are_not_surer_than_their_captions() -> None:
    """Every clip has one hit in five: the replicates are all equal."""
    values = (torch.arange(100) % 5 == 0).double()[:, None]
    ((low, high),) = mean_intervals(values, torch.arange(100) // 5) or ()
    assert low < 0.14 and high > 0.28


def test_one_cluster_says_nothing() -> None:
    assert mean_intervals(torch.tensor([[0.0], [1.0]]), torch.tensor([7, 7])) is None


@pytest.mark.parametrize(
    ("level", "replicates", "said"),
    [
        (95, 100, "got 95: give a number between 0 and 1, such as 0.95"),
        (0.0, 100, "got 0.0: give a number between 0 and 1"),
        (math.nan, 100, "got nan: give a number between 0 and 1"),
        (0.95, 1, "An interval takes two replicates or more, got 1"),
    ],
)
def test_a_level_in_percent_and_a_single_draw_are_refused(
    level: float, replicates: int, said: str
) -> None:
    """The first went on for ever; one draw has no spread, and equal clips were taken for many."""
    with pytest.raises(ValueError, match=said):
        mean_intervals(torch.eye(3), torch.arange(3), level=level, replicates=replicates)


@pytest.mark.parametrize(
    ("values", "rows", "said"),
    [
        (torch.zeros(3), 3, "got \\[3\\] and \\[3\\]"),
        (torch.zeros(3, 1), 2, "got \\[3, 1\\] and \\[2\\]"),
        (torch.tensor([[0.0], [50.0]]), 2, "between 0 and 1"),
        (torch.tensor([[0.0], [math.nan]]), 2, "between 0 and 1"),
    ],
)
def test_what_cannot_be_drawn(values: Tensor, rows: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mean_intervals(values, torch.arange(rows))
