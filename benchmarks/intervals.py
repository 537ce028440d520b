"""How often intervals of retrieval figures hold the truth, and what they cost beside an evaluation.

    python -m benchmarks.intervals [--simulations 2000] [--json FILE]

Test sets are drawn from a source whose true figures are known. The rank of a query is
``e^(m + 2z)``, rounded up, with z normal; z of all queries of a clip, its captions and the clip
itself, have a part in common (``alike`` is their correlation). So ``P(rank <= k)`` is the normal
distribution function at ``(log k - m) / 2``. That gives R@k, mAP@10 with one relevant item a query,
and R-sum; m is set by the true R@1. Each drawn test set is a system in the same per-query figures,
and the package makes its intervals as it does for an evaluation.

Beside it stands the plain bootstrap, of the first 250 test sets of a source: quantiles of the same
replicates, with clips drawn and with captions drawn as if they were independent. Then the seconds
of intervals and of an evaluation without the encoders, at the size of AudioCaps' test set.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.evaluation.bootstrap import ClusterDraws
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.intervals import split_intervals, system_intervals
from atr_moco_plugin.evaluation.metrics import CUTOFFS
from atr_moco_plugin.evaluation.queries import QueryFigures, SplitQueries
from atr_moco_plugin.evaluation.relevance import DUPLICATES, CaptionRelevance, Direction
from atr_moco_plugin.evaluation.retrieval import rank_queries, system_figures

SPREAD = 2.0
RECALLS = (0.05, 0.2, 0.5, 0.8, 0.9)
"""True R@1; R@5 and R@10 lie above."""

HELD = (0.05, 0.95)
"""True figures whose coverage is to be within :data:`TARGET`."""

TARGET = (93.0, 97.0)
AT_ONCE = 250


class Source(NamedTuple):
    """Where test sets are drawn from: clips, captions a clip, and how much these are alike."""

    clips: int
    captions: int
    alike: float
    unequal: bool = False

    def __str__(self) -> str:
        captions = f"1 to {2 * self.captions - 1}" if self.unequal else f"{self.captions}"
        return f"{self.clips:,} clips, {captions} captions, alike {self.alike:g}"


SOURCES = (
    Source(50, 1, 0.0),
    Source(50, 5, 0.5),
    Source(100, 1, 0.0),
    Source(100, 5, 0.5),
    Source(100, 5, 0.9),
    Source(100, 5, 0.5, unequal=True),
    Source(250, 5, 0.5),
    Source(1_000, 1, 0.0),
    Source(1_000, 5, 0.0),
    Source(1_000, 5, 0.5),
    Source(1_000, 5, 0.9),
)


class Coverage(NamedTuple):
    """How often the intervals of one figure held the truth, in percent of the simulations.

    Attributes:
        figure: its name.
        truth: in [0, 1]; a rank for the median.
        held: of the package's intervals.
        quantiles: of quantiles of the same replicates.
        independent: the same with every caption for itself; None for figures of clips.
    """

    figure: str
    truth: float
    held: float
    quantiles: float | None = None
    independent: float | None = None


def truths(r1: float) -> dict[str, float]:
    """True figures of a source with this R@1."""
    middle = -SPREAD * NormalDist().inv_cdf(r1)
    below = [NormalDist().cdf((math.log(k) - middle) / SPREAD) for k in range(1, 11)]
    exactly = np.diff([0.0, *below])
    figures = {f"r{k}": below[k - 1] for k in CUTOFFS}
    figures["map10"] = float((exactly / np.arange(1, 11)).sum())
    # The smallest rank that half of all queries reach.
    figures["medr"] = float(math.ceil(math.exp(middle))) if r1 < 0.5 else 1.0
    return figures


def draw(source: Source, r1: float, systems: int, generator: torch.Generator) -> SplitQueries:
    """Test sets of a source, each as a system of one file. All have as many captions a clip."""
    most = 2 * source.captions - 1
    each = torch.full((source.clips,), source.captions)
    if source.unequal:
        each = 1 + torch.arange(source.clips) % most
    owner = torch.repeat_interleave(torch.arange(source.clips), each)
    shared = torch.randn(systems, source.clips, generator=generator)
    middle = -SPREAD * NormalDist().inv_cdf(r1)
    cluster: dict[Direction, Tensor] = {"a2t": torch.arange(source.clips), "t2a": owner}
    found: dict[Direction, dict[str, QueryFigures]] = {}
    for way, clip in cluster.items():
        own = torch.randn(systems, len(clip), generator=generator)
        z = math.sqrt(source.alike) * shared[:, clip] + math.sqrt(1 - source.alike) * own
        ranks = (middle + SPREAD * z.double()).exp().ceil().clamp(1, 1e6).long()
        precisions = torch.where(ranks <= 10, 1 / ranks.double(), 0.0)
        first = torch.zeros(len(clip), dtype=torch.int64)
        found[way] = {str(i): QueryFigures(ranks[i], precisions[i], first) for i in range(systems)}
    names = ("",) * source.clips, ("",) * len(owner)
    return SplitQueries("simulated", *names, "", True, cluster, found)


def coverage(source: Source, r1: float, simulations: int, seed: int = 0) -> list[Coverage]:
    """How often the intervals of test sets of a source hold its true figures.

    Args:
        source: the source.
        r1: its true R@1.
        simulations: test sets.
        seed: of the test sets.
    """
    generator = torch.Generator().manual_seed(seed)
    truth = truths(r1)
    total = 6 * sum(truth[f"r{k}"] for k in CUTOFFS) / 3
    names = [f"{way}_{name}" for way in ("a2t", "t2a") for name in truth]
    held = dict.fromkeys([*names, "r_sum"], 0)
    means = [f"t2a_{name}" for name in truth if name != "medr"]
    quantiles, independent = dict.fromkeys(means, 0), dict.fromkeys(means, 0)
    for start in range(0, simulations, AT_ONCE):
        queries = draw(source, r1, min(AT_ONCE, simulations - start), generator)
        for ends in system_intervals(queries).values():
            for name in names:
                low, high = ends[name]
                scale = 1 if name.endswith("medr") else 100
                held[name] += low <= scale * truth[name[4:]] <= high
            low, high = ends["r_sum"]
            held["r_sum"] += low <= 100 * total <= high
        expected = torch.tensor([truth[name[4:]] for name in means])
        if start:
            continue
        for counts, cluster in (
            (quantiles, queries.cluster["t2a"]),
            (independent, torch.arange(len(queries.captions))),
        ):
            inside = _quantiles_hold(queries, cluster, expected)
            for name, n in zip(means, inside.tolist(), strict=True):
                counts[name] += n

    def percent(n: int | None) -> float | None:
        return None if n is None else 100 * n / min(simulations, AT_ONCE)

    return [
        Coverage(
            name,
            total / 6 if name == "r_sum" else truth[name[4:]],
            100 * n / simulations,
            percent(quantiles.get(name)),
            percent(independent.get(name)),
        )
        for name, n in held.items()
    ]


def _quantiles_hold(queries: SplitQueries, cluster: Tensor, truth: Tensor) -> Tensor:
    """``[4]``: for how many systems quantiles of the replicates hold true R@k and mAP@10."""
    found = list(queries.systems["t2a"].values())
    ranks = torch.stack([of.rank for of in found], dim=1)
    columns = [*((ranks <= k).double() for k in CUTOFFS)]
    columns.append(torch.stack([of.precision for of in found], dim=1))
    draws = ClusterDraws(int(cluster.max()) + 1)
    inside = []
    for values, true in zip(columns, truth.tolist(), strict=True):
        ordered = draws.means(values, cluster).sort(dim=0).values
        low, high = ordered[len(ordered) // 40 - 1], ordered[-(len(ordered) // 40)]
        inside.append(((low <= true + 1e-12) & (true - 1e-12 <= high)).sum())
    return torch.stack(inside)


def is_held(found: Coverage) -> bool:
    """Whether the figure is one whose coverage is to be within :data:`TARGET`."""
    return not found.figure.endswith("medr") and HELD[0] <= found.truth <= HELD[1]


def coverage_table(found: Sequence[tuple[Source, list[Coverage]]]) -> Table:
    """Lowest and highest coverage of each source, over all true R@1."""
    rows = []
    for source in dict.fromkeys(source for source, _ in found):
        of_source = [x for other, figures in found if other == source for x in figures]
        held = [x for x in of_source if is_held(x)]
        recalls = [x for x in held if x.figure[4:5] == "r"]
        groups = [
            [x.held for x in recalls],
            [x.held for x in held if x.figure.endswith("map10")],
            [x.held for x in held if x.figure == "r_sum"],
            [x.held for x in of_source if x.figure.endswith("medr")],
            [x.quantiles for x in held if x.quantiles is not None],
            [x.independent for x in held if x.independent is not None],
        ]
        rows.append([str(source), *(f"{min(x):.1f} to {max(x):.1f}" for x in groups)])
    header = ["source", "R@k", "mAP10", "R-sum", "MedR", "quantiles", "captions drawn"]
    return Table(header, rows)


def share_of_time(clips: int = 975, each: int = 5, dim: int = 512) -> Iterator[tuple[str, float]]:
    """Seconds of an evaluation without encoders and re-ranking, and of its intervals."""
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(clips * each) // each
    centers = torch.randn(clips, dim, generator=generator)
    audio, text = Encoded(), Encoded()
    audio.add(F.normalize(centers, dim=1), None)
    near = centers[owner] + 2 * torch.randn(clips * each, dim, generator=generator)
    text.add(F.normalize(near, dim=1), None)
    cosines = Cosines(audio, text)
    ids = torch.arange(clips * each) // 2
    relevances = {
        "": CaptionRelevance(owner, clips),
        DUPLICATES: CaptionRelevance(owner, clips, caption_ids=ids),
    }
    start = time.perf_counter()
    systems = rank_queries(cosines, relevances)
    system_figures(systems, relevances)
    yield "cosines, ranks and figures", time.perf_counter() - start
    cluster: dict[Direction, Tensor] = {"a2t": torch.arange(clips), "t2a": owner}
    names = ("",) * clips, ("",) * len(owner)
    queries = SplitQueries("made up", *names, "", True, cluster, systems)
    start = time.perf_counter()
    split_intervals(queries)
    yield "intervals", time.perf_counter() - start


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2_000)
    parser.add_argument("--clips", type=int, help="of the largest sources (default: all of them)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every coverage there too")
    options = parser.parse_args(arguments)
    found = []
    for number, source in enumerate(SOURCES):
        if options.clips is not None and source.clips > options.clips:
            continue
        for turn, r1 in enumerate(RECALLS):
            seed = 100 * number + turn
            found.append((source, coverage(source, r1, options.simulations, seed)))
        print(f"{time.process_time():5.0f} s  {source}", file=sys.stderr, flush=True)
    print(f"Coverage in percent over {options.simulations:,} test sets each, lowest to highest\n")
    print(coverage_table(found).markdown())
    held = [(source, x) for source, figures in found for x in figures if is_held(x)]
    outside = [(source, x) for source, x in held if not TARGET[0] <= x.held <= TARGET[1]]
    mean = sum(x.held for _, x in held) / len(held)
    print(
        f"\n{len(held)} figures with a true value between 5 and 95 %: {mean:.1f} % on average, "
        f"{len(outside)} outside of {TARGET[0]:g} to {TARGET[1]:g} %"
    )
    for source, x in outside:
        print(f"- {source}: {x.figure}, true {100 * x.truth:.1f} %, held {x.held:.2f} %")
    seconds = dict(share_of_time())
    print("\n" + ", ".join(f"{name} {1_000 * s:,.0f} ms" for name, s in seconds.items()))
    if options.json:
        rows = [{**source._asdict(), **x._asdict()} for source, of in found for x in of]
        options.json.write_text(json.dumps({"coverage": rows, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
