"""How often a comparison calls equal models different, where 5 % are allowed.

    python -m benchmarks.comparison [--trials 1000] [--seed 0]

Both sides are drawn from one law, anew in every trial, with new clips. The rank of a query is one
more than a log-normal number, whose logarithm sums what is hard about its clip and its caption for
every model, what a recipe finds hard about a clip, what a seed does to all clips and to one, and
noise. So sides differ in nothing that another test set and other seeds would show again, and every
difference that is called is called wrongly. "Naive" is what a simpler test calls: the sign test by
query, as if the captions of a clip were independent, of one run a side; and of several, the test of
the first run of each side, as if there were no other seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from atr_moco_plugin.comparison.inference import Difference, Settings, compare_sides, holm
from atr_moco_plugin.comparison.measures import Measures, Ranks, Run
from atr_moco_plugin.evaluation.tables import Table

FIGURES = ("a2t_r1", "t2a_r1", "t2a_r10", "t2a_map10", "t2a_medr", "r_sum")
"""Figures with a column of their own."""

DRAWS = Settings(replicates=1_000, flips=1_000)


class Case(NamedTuple):
    """Sizes of a simulation.

    Attributes:
        clips: in the test set.
        captions: of a clip.
        hard: mean logarithm of the ranks, before the one that is added.
        runs: of both sides.
        seeds: standard deviation of what a seed does to the logarithm of all ranks.
    """

    clips: int
    captions: int
    hard: float
    runs: tuple[int, int] = (1, 1)
    seeds: float = 0.0

    def __str__(self) -> str:
        sides = "{} and {}".format(*self.runs)
        seeds = f", seeds ±{self.seeds:g}" if max(self.runs) > 1 else ""
        return f"{self.clips:,} x {self.captions}, runs {sides}{seeds}"


CASES = (
    Case(50, 5, 1.0),
    Case(200, 5, 2.2),
    Case(200, 5, 1.0),
    Case(200, 5, -0.5),
    Case(1_000, 1, 1.0),
    Case(1_000, 5, 1.0),
    *(Case(200, 5, 1.0, (n, n), seeds) for n in (2, 3, 5) for seeds in (0.0, 0.05, 0.3)),
    Case(200, 5, 1.0, (1, 3), 0.05),
    Case(200, 5, 1.0, (1, 3), 0.3),
)


def draw_sides(case: Case, rng: np.random.Generator) -> tuple[Measures, list[list[Run]]]:
    """Two sides that are equally good, and the figures of their test set."""
    owner = np.repeat(np.arange(case.clips), case.captions)
    cluster = {"a2t": np.arange(case.clips), "t2a": owner}
    of_clip = rng.normal(case.hard, 1.0, case.clips)
    of_query = {way: rng.normal(0, 0.5, len(number)) for way, number in cluster.items()}
    sides = []
    for runs in case.runs:
        of_recipe = rng.normal(0, 0.4, case.clips)
        side: list[Run] = []
        for _ in range(runs):
            seed = rng.normal(0, case.seeds)
            hard = of_clip + of_recipe + seed + rng.normal(0, 0.3, case.clips)
            run = {}
            for way, number in cluster.items():
                noise = rng.normal(0, 0.7, len(number))
                rank = 1 + np.exp(hard[number] + of_query[way] + noise).astype(np.int64)
                run[way] = Ranks(rank, np.where(rank <= 10, 1 / rank, 0.0))
            side.append(run)
        sides.append(side)
    return Measures(cluster, (case.clips,)), sides


def trial(case: Case, rng: np.random.Generator, seed: int) -> tuple[Measures, Difference, float]:
    """One comparison of equals, and the p-value of R@1, text to audio, by the naive test."""
    measures, (ours, base) = draw_sides(case, rng)
    settings = Settings(DRAWS.replicates, DRAWS.flips, seed)
    found = compare_sides(measures, ours, base, settings)
    if max(case.runs) > 1:
        alone = compare_sides(measures, ours[:1], base[:1], settings)
        return measures, found, float(alone.p[measures.names.index("t2a_r1")])
    queries = len(measures.cluster["t2a"])
    by_query = Measures({"t2a": np.arange(queries)}, (queries,), medians=False)
    one = compare_sides(by_query, [{"t2a": ours[0]["t2a"]}], [{"t2a": base[0]["t2a"]}], settings)
    return measures, found, float(one.p[0])


def row(case: Case, trials: int, seed: int) -> list[str]:
    """Shares of trials, in percent."""
    rng = np.random.default_rng([seed, *map(ord, str(case))])
    outside, called = [], []
    naive = family = 0.0
    recall = []
    for number in range(trials):
        measures, found, simple = trial(case, rng, number)
        outside.append((found.low > 0) | (found.high < 0))
        called.append(found.p <= 0.05)
        family += min(holm([float(p) for p in found.p])) <= 0.05
        naive += simple <= 0.05
        recall.append(found.base[measures.names.index("t2a_r1")])
    chosen = [measures.names.index(name) for name in FIGURES]
    by_interval, by_test = (100 * np.mean(x, axis=0)[chosen] for x in (outside, called))
    return [
        str(case),
        f"{np.mean(recall):.0f}",
        *(f"{a:.1f} / {b:.1f}" for a, b in zip(by_interval, by_test, strict=True)),
        f"{100 * family / trials:.1f}",
        f"{100 * naive / trials:.1f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000, metavar="N", help="of each row")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws")
    parser.add_argument(
        "--cases", type=int, nargs="+", default=range(len(CASES)), metavar="N", help="rows, from 0"
    )
    options = parser.parse_args(arguments)
    error = 100 * (0.05 * 0.95 / options.trials) ** 0.5
    rows = []
    for number in options.cases:
        rows.append(row(CASES[number], options.trials, options.seed))
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    table = Table(
        header=["clips x captions", "R@1 %", *FIGURES, "any of 11, Holm", "t2a_r1, naive"],
        rows=rows,
        notes=[
            f"{options.trials:,} trials a row: one standard error at 5 % is {error:.1f}.",
            "Two shares in a cell: intervals without 0, and p at most 0.05; both in percent.",
        ],
    )
    print(table.markdown())


if __name__ == "__main__":
    main()
