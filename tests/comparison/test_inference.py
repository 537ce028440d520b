"""Intervals and tests, against values worked out in another way, and under a null that is true."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from compared_runs import draw_run, measures_of
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.comparison.inference import Settings, compare_sides, holm
from atr_moco_plugin.comparison.measures import Measures, Ranks, Run

SOME = Settings(replicates=400, flips=400)


def hits(*rows: list[bool]) -> list[Run]:
    """Runs of one direction whose queries are found first or not at all."""
    runs: list[Run] = []
    for row in rows:
        rank = np.where(row, 1, 1000)
        runs.append({"t2a": Ranks(rank, np.where(rank == 1, 1.0, 0.0))})
    return runs


def test_the_randomisation_test_is_that_of_all_exchanges() -> None:
    """Ten clips: seven are found by one run alone, one by the other alone."""
    ours, base = hits([True] * 7 + [False] + [True, False], [False] * 7 + [True] + [True, False])
    measures = Measures({"t2a": np.arange(10)}, (10,))
    found = compare_sides(measures, [ours], [base], Settings(replicates=50, flips=40_000))
    sums = [abs(sum(signs)) for signs in product((-1, 1), repeat=8)]
    assert found.difference[0] == pytest.approx(60.0)
    assert found.p[0] == pytest.approx(np.mean([s >= 6 for s in sums]), abs=0.004)


def test_equal_runs_do_not_differ() -> None:
    measures = measures_of(12, 3)
    run = draw_run(measures, np.random.default_rng(0))
    for sides in (([run], [run]), ([run, run], [run, run, run])):
        found = compare_sides(measures, *sides, SOME)
        assert (found.difference == 0).all() and (found.p == 1).all()
        np.testing.assert_allclose(found.low, -found.high)


def test_models_that_agree_on_every_clip_are_not_certainly_equal() -> None:
    """The interval is of the true share of clips on which they differ, where none of n does:
    Clopper and Pearson's for 0 of n."""
    (run,) = hits([True] * 2 + [False] * 8)
    found = compare_sides(Measures({"t2a": np.arange(10)}, (10,)), [run], [run], SOME)
    share = 100 * (1 - 0.025**0.1)
    np.testing.assert_allclose(found.high[:4], share)
    assert (found.difference == 0).all() and (found.p == 1).all()
    # A median is not a mean: here each side alone could have another one.
    assert found.low[4] <= 0 <= found.high[4]


def test_all_clips_that_differ_alike_say_no_more_than_their_number() -> None:
    for number, certain in ((5, False), (6, True), (40, True)):
        ours, base = hits([True] * number, [False] * number)
        measures = Measures({"t2a": np.arange(number)}, (number,))
        found = compare_sides(measures, [ours], [base], SOME)
        assert found.difference[0] == found.high[0] == 100 > found.low[0]
        # As the sign test has it, and so it is for seeds that all say the same.
        assert bool(found.low[0] > 0) is certain
        seeds = compare_sides(measures, [ours] * 3, [base] * 3, SOME)
        assert (seeds.low[0], seeds.high[0]) == (found.low[0], found.high[0])
        assert seeds.p[0] == pytest.approx(2 * 0.5**number)


@given(st.integers(2, 60), st.integers(1, 60), st.booleans(), st.integers(0, 2**16))
def test_more_clips_that_agree_give_narrower_intervals(
    clips: int, more: int, joint: bool, seed: int
) -> None:
    width = []
    for number in (clips, clips + more):
        measures = measures_of(number, 2, joint=joint, medians=False)
        run = draw_run(measures, np.random.default_rng(seed))
        found = compare_sides(measures, [run], [run], Settings(50, 10))
        width.append(found.high - found.low)
        assert (width[-1] > 0).all() and (width[-1] <= 2 * measures.most).all()
    assert (width[1] < width[0]).all()


def test_medians_that_are_sure_agree_surely() -> None:
    """Nine of ten ranks are 1, whatever clips are drawn; of ranks that are spread that is not
    so, although the two sides have the same ones."""
    measures = Measures({"t2a": np.arange(40)}, (40,))
    sure = {"t2a": Ranks(np.repeat([1, 9], [36, 4]), np.zeros(40))}
    spread = {"t2a": Ranks(np.arange(1, 41), np.zeros(40))}
    found = [compare_sides(measures, [run], [run], SOME) for run in (sure, spread)]
    assert (found[0].low[4], found[0].high[4]) == (0, 0)
    assert -40 < found[1].low[4] < -3 and 3 < found[1].high[4] < 40


def test_a_figure_rests_on_the_clusters_of_its_own_direction() -> None:
    """Clips and texts that are drawn apart: few texts say nothing of the figures of clips."""
    rng = np.random.default_rng(8)
    measures = Measures({"a2t": np.arange(1000), "t2a": 1000 + np.arange(5)}, (1000, 5))
    run, other = draw_run(measures, rng), draw_run(measures, rng)
    found = compare_sides(measures, [run], [run], Settings(50, 50))
    high = dict(zip(measures.names, found.high, strict=True))
    assert high["a2t_r1"] == high["a2t_map10"] == pytest.approx(100 * (1 - 0.025**0.001))
    assert high["t2a_r1"] == pytest.approx(100 * (1 - 0.025**0.2))
    assert high["r_sum"] == pytest.approx(600 * (1 - 0.025**0.2))
    # Nor do they where seeds vary, nor where all clips say the same.
    both, alone = measures, Measures({"a2t": np.arange(1000)}, (1000,))
    sides = [run, run], [other, other]
    of_all, of_clips = (compare_sides(m, *sides, Settings(4_000, 50)) for m in (both, alone))
    width = (of_all.high - of_all.low)[0] / (of_clips.high - of_clips.low)[0]
    assert width == pytest.approx(1, abs=0.06)
    assert of_all.p[0] == pytest.approx(of_clips.p[0], abs=0.03)


@given(
    st.integers(2, 120),
    st.integers(1, 3),
    st.integers(0, 5),
    st.booleans(),
    st.integers(1, 2),
    st.integers(0, 2**16),
)
def test_few_clips_that_differ_are_not_surer_than_none(
    clips: int, captions: int, differing: int, joint: bool, seeds: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    measures = measures_of(clips, captions, joint=joint)
    base, other = draw_run(measures, rng), draw_run(measures, rng, better=rng.normal(0, 3))
    chosen = rng.choice(measures.clusters, min(differing, measures.clusters), replace=False)
    ours: Run = {}
    for way, cluster in measures.cluster.items():
        pairs = zip(other[way], base[way], strict=True)
        ours[way] = Ranks(*(np.where(np.isin(cluster, chosen), x, y) for x, y in pairs))
    none = compare_sides(measures, [base] * seeds, [base] * seeds, Settings(60, 400))
    few = compare_sides(measures, [ours] * seeds, [base] * seeds, Settings(60, 400))
    assert (few.high - few.low >= (none.high - none.low) * (1 - 1e-9)).all()
    assert (few.low <= few.difference).all() and (few.difference <= few.high).all()
    assert (np.maximum(-few.low, few.high) <= measures.most + 1e-9).all()
    # Five clips that all differ to one side have p = 0.06, and the interval says no other.
    assert (few.low <= 0).all() and (few.high >= 0).all()
    assert (few.p > 0.02).all() if seeds == 1 else (few.p > 0.05).all()


def test_the_sixth_clip_that_differs_can_make_a_difference_certain() -> None:
    for number in (4, 5, 6, 7):
        ours, base = hits([True] * number + [False] * 94, [False] * (number + 94))
        measures = Measures({"t2a": np.arange(number + 94)}, (number + 94,))
        for runs in (1, 3):
            found = compare_sides(measures, [ours] * runs, [base] * runs, Settings(2_000, 4_000))
            assert bool(found.low[0] > 0) is bool(found.p[0] <= 0.05) is (number >= 6)


def test_a_median_moves_as_far_as_the_clips_leave_room_for() -> None:
    """Of 100 clips 3.6 % may differ elsewhere: from the 47th to the 54th rank of all."""
    run: Run = {"t2a": Ranks(np.arange(1, 101), np.zeros(100))}
    found = compare_sides(Measures({"t2a": np.arange(100)}, (100,)), [run], [run], SOME)
    assert (found.low[4], found.high[4]) == (-4.5, 4.5)


def test_seeds_with_equal_figures_and_unlike_clips_are_not_certain() -> None:
    """Each run finds other clips, as many of them: what is left of the variance is none."""
    rng = np.random.default_rng(7)
    runs = hits(*(list(rng.permutation([True] * 5 + [False] * 5)) for _ in range(4)))
    measures = Measures({"t2a": np.arange(10)}, (10,))
    found = compare_sides(measures, runs[:2], runs[2:], SOME)
    assert found.difference[0] == 0 and found.p[0] == 1
    assert found.low[0] < 0 < found.high[0]


def test_sides_the_other_way_round() -> None:
    rng = np.random.default_rng(1)
    measures = measures_of(40, 2)
    ours, base = draw_run(measures, rng, better=1.0), draw_run(measures, rng)
    there = compare_sides(measures, [ours], [base], SOME)
    back = compare_sides(measures, [base], [ours], SOME)
    np.testing.assert_allclose(there.difference, -back.difference, atol=1e-12)
    np.testing.assert_allclose(there.p, back.p, atol=0.06)
    assert (there.low <= there.difference).all() and (there.difference <= there.high).all()


def test_the_same_seed_gives_the_same_figures() -> None:
    rng = np.random.default_rng(2)
    measures = measures_of(15, 2)
    sides = [draw_run(measures, rng) for _ in range(2)], [draw_run(measures, rng) for _ in range(3)]
    first, again = (compare_sides(measures, *sides, SOME) for _ in range(2))
    other = compare_sides(measures, *sides, Settings(replicates=400, flips=400, seed=1))
    assert all((getattr(first, name) == value).all() for name, value in vars(again).items())
    assert (first.low != other.low).any()


def test_captions_of_a_clip_are_one_draw() -> None:
    """Five captions that say the same are worth one: the interval is that of the clips."""
    rng = np.random.default_rng(3)
    ours, base = (rng.random(60) < share for share in (0.7, 0.4))
    once = Measures({"t2a": np.arange(60)}, (60,))
    five = Measures({"t2a": np.repeat(np.arange(60), 5)}, (60,))
    width = []
    for measures, copies in ((once, 1), (five, 5)):
        runs = hits(*(list(np.repeat(side, copies)) for side in (ours, base)))
        found = compare_sides(measures, runs[:1], runs[1:], Settings(2_000, 2_000))
        width.append((found.low[0], found.high[0], found.p[0]))
    assert width[0] == pytest.approx(width[1], abs=1e-9)


def test_seeds_that_vary_make_the_interval_wider() -> None:
    rng = np.random.default_rng(4)
    measures = measures_of(200, 2)

    def side(spread: float) -> list[Run]:
        return [draw_run(measures, rng, better=spread * x) for x in (-1, 0, 1)]

    calm, wild = (compare_sides(measures, side(s), side(s), SOME) for s in (0.0, 0.6))
    assert ((wild.high - wild.low) > 1.5 * (calm.high - calm.low))[-1]


def test_one_run_borrows_the_variance_of_the_seeds_of_the_other_side() -> None:
    rng = np.random.default_rng(5)
    measures = measures_of(200, 2)
    seeds = [draw_run(measures, rng, better=x) for x in (-0.5, 0.0, 0.5)]
    alone = compare_sides(measures, seeds[:1], [draw_run(measures, rng)], SOME)
    beside = compare_sides(measures, seeds, [draw_run(measures, rng)], SOME)
    assert (beside.high - beside.low)[-1] > 1.5 * (alone.high - alone.low)[-1]


def test_pairs_of_results_of_the_same_seeds() -> None:
    """Seeds that vary much, and a second stage that gains the same in each: only in pairs is the
    gain seen."""
    rng = np.random.default_rng(6)
    measures = measures_of(150, 2)
    before, after = [], []
    for seed in (-1.0, 0.0, 1.0):
        run = draw_run(measures, rng, better=seed)
        better = {}
        for way, (rank, _) in run.items():
            now = np.where(rng.random(len(rank)) < 0.6, 1 + rank // 3, rank)
            better[way] = Ranks(now, np.where(now <= 10, 1 / now, 0.0))
        before.append(run)
        after.append(better)
    alone, together = (
        compare_sides(measures, after, before, SOME, paired=paired) for paired in (False, True)
    )
    np.testing.assert_allclose(alone.difference, together.difference)
    assert together.p[-1] < 0.05 < alone.p[-1]
    assert together.low[-1] > 0 > alone.low[-1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm(p: list[float]) -> None:
    corrected = holm(p)
    assert all(
        own <= now <= min(1, len(p) * own) + 1e-12 for own, now in zip(p, corrected, strict=True)
    )
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()
    # What is called at 5 % is what Holm's steps call: until one is above 5 % over those left.
    steps = [p[i] * (len(p) - place) <= 0.05 for place, i in enumerate(order)]
    first = steps.index(False) if False in steps else len(p)
    assert sum(value <= 0.05 for value in corrected) == first


@pytest.mark.slow
@pytest.mark.parametrize("runs", [(1, 1), (3, 3)])
def test_equal_models_are_called_different_about_once_in_twenty(runs: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    measures = measures_of(150, 2)
    trials, outside, called = 300, 0, 0
    for trial in range(trials):
        sides = [[draw_run(measures, rng) for _ in range(number)] for number in runs]
        found = compare_sides(measures, sides[0], sides[1], Settings(300, 300, trial))
        outside += not found.low[0] <= 0 <= found.high[0]
        called += found.p[0] <= 0.05
    assert 0.01 < outside / trials < 0.10
    assert 0.01 < called / trials < 0.09
