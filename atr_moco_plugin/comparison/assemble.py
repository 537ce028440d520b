"""A comparison: sides are read, checked to be of one test set, and set against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.comparison.inference import Difference, Settings, compare_sides, holm
from atr_moco_plugin.comparison.measures import Measures, Ranks, Run
from atr_moco_plugin.comparison.notes import compare_notes, same_runs
from atr_moco_plugin.comparison.results import (
    Result,
    best_ranks,
    check_same_test_set,
    read_results,
)
from atr_moco_plugin.comparison.sides import SYSTEM, Side
from atr_moco_plugin.comparison.trec_files import read_trec_results
from atr_moco_plugin.errors import InputError


@dataclass(frozen=True)
class Options:
    """What is compared and how.

    Attributes:
        system: whose results are read where a run does not say.
        split: of the runs; None for ``test``, or for the only one.
        direction: of files of TREC; None where their names say it.
        qrels: judgements of files of TREC; None for those beside them.
        figures: names of the figures; empty for all.
        all_pairs: compare every two sides, not each with the first.
        settings: how much is drawn.
    """

    system: str = SYSTEM
    split: str | None = None
    direction: str | None = None
    qrels: Path | None = None
    figures: tuple[str, ...] = ()
    all_pairs: bool = False
    settings: Settings = Settings()


@dataclass(frozen=True)
class Pair:
    """Two sides against each other.

    Attributes:
        base: number of the side that is compared with.
        ours: number of the other.
        found: the figures and what is known of their differences.
        corrected: p-values corrected for all tests of the comparison, in the order of the figures.
        better: by direction, how many queries ``ours`` answers better, equally and worse.
    """

    base: int
    ours: int
    found: Difference
    corrected: tuple[float, ...]
    better: dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Comparison:
    """Sides on one test set.

    Attributes:
        sides: the sides; the first is what the others are compared with.
        results: of each run of each side.
        names: of the figures.
        measures: makes the figures.
        pairs: what was compared.
        settings: how much was drawn.
        notes: sentences on what a reader should know.
    """

    sides: tuple[Side, ...]
    results: tuple[tuple[Result, ...], ...]
    names: tuple[str, ...]
    measures: Measures
    pairs: tuple[Pair, ...]
    settings: Settings
    notes: tuple[str, ...]

    @property
    def tests(self) -> int:
        """How many tests the p-values are corrected for."""
        return len(self.pairs) * len(self.names)

    @property
    def size(self) -> str:
        """The test set in words: its name, clips and captions."""
        first = self.results[0][0]
        words = {"a2t": "clips", "t2a": "captions"}
        queries = (f"{len(way.queries):,} {words[name]}" for name, way in first.ways.items())
        return f"{first.test_set}, {', '.join(queries)}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "test_set": self.results[0][0].test_set,
            "digest": self.results[0][0].digest,
            "queries": {way: len(x.queries) for way, x in self.results[0][0].ways.items()},
            "clusters": self.measures.clusters,
            "sides": {side.name: [str(x) for x in side.sources] for side in self.sides},
            "settings": {"level": 0.95, **asdict(self.settings)},
            "tests": self.tests,
            "comparisons": [self._pair_dict(pair) for pair in self.pairs],
            "notes": list(self.notes),
        }

    def _pair_dict(self, pair: Pair) -> dict[str, Any]:
        found = pair.found
        figures = {
            name: {
                "base": float(found.base[n]),
                "ours": float(found.ours[n]),
                "difference": float(found.difference[n]),
                "interval": [float(found.low[n]), float(found.high[n])],
                "p": float(found.p[n]),
                "p_holm": pair.corrected[n],
            }
            for n, name in enumerate(self.names)
        }
        words = ("better", "equal", "worse")
        return {
            "base": self.sides[pair.base].name,
            "ours": self.sides[pair.ours].name,
            "test": "exchange of clips" if self._single(pair) else "t over seeds and clips",
            "paired": same_runs(self.sides[pair.base], self.sides[pair.ours]),
            "figures": figures,
            "queries": {
                way: dict(zip(words, counts, strict=True)) for way, counts in pair.better.items()
            },
        }

    def _single(self, pair: Pair) -> bool:
        return len(self.results[pair.base]) == len(self.results[pair.ours]) == 1


def compare(sides: Sequence[Side], options: Options, notes: Sequence[str] = ()) -> Comparison:
    """Read the sides and compare each with the first.

    Args:
        sides: two or more.
        options: what is compared and how.
        notes: sentences to begin with.

    Raises:
        InputError: for results that cannot be read or are not of one test set, or a figure that is
            not there.
    """
    results = _read(sides, options)
    every = [result for of_side in results for result in of_side]
    check_same_test_set(every)
    measures, answered = _measures(every)
    runs = [[_run(result, answered) for result in of_side] for of_side in results]
    names, chosen = _chosen(measures, options.figures)
    numbers = range(len(sides))
    both = combinations(numbers, 2) if options.all_pairs else ((0, n) for n in numbers[1:])
    found = [
        (
            base,
            ours,
            _compare_two(
                measures, (sides[base], sides[ours]), (runs[base], runs[ours]), options.settings
            ),
        )
        for base, ours in both
    ]
    cut = [
        (base, ours, Difference(**{key: value[chosen] for key, value in vars(of_pair).items()}))
        for base, ours, of_pair in found
    ]
    corrected = np.array(holm([float(p) for _, _, of_pair in cut for p in of_pair.p]))
    pairs = tuple(
        Pair(base, ours, of_pair, tuple(row), _better(results[base], results[ours]))
        for (base, ours, of_pair), row in zip(
            cut, corrected.reshape(len(cut), -1).tolist(), strict=True
        )
    )
    places = [(pair.base, pair.ours) for pair in pairs]
    return Comparison(
        tuple(sides),
        tuple(map(tuple, results)),
        names,
        measures,
        pairs,
        options.settings,
        (
            *notes,
            *compare_notes(sides, places, results, len(names)),
        ),
    )


def _compare_two(
    measures: Measures,
    sides: tuple[Side, Side],
    runs: tuple[list[Run], list[Run]],
    settings: Settings,
) -> Difference:
    """Compare the second side with the first, run by run where both are of the same runs."""
    base, ours = runs
    if not (paired := same_runs(*sides)):
        return compare_sides(measures, ours, base, settings)
    places = [source.path.resolve() for source in sides[1].sources]
    order = [places.index(source.path.resolve()) for source in sides[0].sources]
    return compare_sides(measures, [ours[n] for n in order], base, settings, paired=paired)


def _read(sides: Sequence[Side], options: Options) -> list[list[Result]]:
    sources = [source for side in sides for source in side.sources]
    files = any(source.path.is_file() for source in sources)
    idle = ["split"] if files else ["qrels", "direction"]
    if options.system != SYSTEM and all(source.path.is_file() for source in sources):
        idle.append("system")
    for name in idle:
        if (value := getattr(options, name)) is not None:
            what = f"a .run file has one {name}" if files else "it is for .run files of TREC"
            raise InputError(f"--{name} {value} does nothing here: {what}; leave it out.")
    if not files:
        flat = read_results(sources, options.system, options.split)
    else:
        flat = read_trec_results(sources, options.system, options.direction, options.qrels)
    rest = iter(flat)
    return [[next(rest) for _ in side.sources] for side in sides]


def _measures(results: Sequence[Result]) -> tuple[Measures, dict[str, NDArray[np.bool_]]]:
    """The figures of a test set, and by direction which queries have an answer."""
    first = results[0]
    answered = {name: way.rank > 0 for name, way in first.ways.items()}
    cluster = {name: way.cluster[answered[name]] for name, way in first.ways.items()}
    strata: list[int] = []
    numbered: dict[str, NDArray[np.int64]] = {}
    if first.joint:
        every = np.unique(np.concatenate(list(cluster.values())))
        numbered = {name: np.searchsorted(every, own) for name, own in cluster.items()}
        strata = [len(every)]
    else:
        for name, own in cluster.items():
            every, number = np.unique(own, return_inverse=True)
            numbered[name] = number + sum(strata)
            strata.append(len(every))
    if min(strata) < 2:
        raise InputError(
            f"{first.name}: {first.test_set} has a single clip to ask about, and one clip cannot "
            "say how much figures vary; compare on more."
        )
    # A file of TREC ends at some depth, and a median rank may lie beyond.
    medians = all(result.depth is None for result in results)
    return Measures(numbered, tuple(strata), medians), answered


def _run(result: Result, answered: dict[str, NDArray[np.bool_]]) -> Run:
    return {
        name: Ranks(way.rank[answered[name]], way.precision[answered[name]])
        for name, way in result.ways.items()
    }


def _chosen(measures: Measures, figures: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    names = measures.names
    for name in figures:
        if name not in names:
            raise InputError(
                f"There is no figure {name!r} of these results: name some of {', '.join(names)}."
            )
    chosen = [n for n, name in enumerate(names) if not figures or name in figures]
    return tuple(names[n] for n in chosen), chosen


def _better(base: Sequence[Result], ours: Sequence[Result]) -> dict[str, tuple[int, int, int]]:
    counts = {}
    for way in base[0].ways:
        gain = log_gain(best_ranks(base, way), best_ranks(ours, way))
        counts[way] = (int((gain > 0).sum()), int((gain == 0).sum()), int((gain < 0).sum()))
    return counts


def log_gain(base: NDArray[np.int64], ours: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much better each query is answered: 1 where its rank is half as large.

    Args:
        base: ``[runs, Q]`` ranks from 1.
        ours: ``[runs, Q]``, of as many runs or of others.

    Returns:
        ``[Q]``, the difference of the mean binary logarithms of the ranks.
    """
    gain: NDArray[np.float64] = np.log2(base).mean(axis=0) - np.log2(ours).mean(axis=0)
    return np.where(np.abs(gain) < 1e-9, 0.0, gain)
