"""Which runs there are, in which order, with how many steps and at which rate."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atr_moco_plugin.criterion.matching_start import LAST_PART
from benchmarks.negatives.data import DATA, RATES, SEARCHED
from benchmarks.negatives.prices import Price
from benchmarks.negatives.rows import Row, RowFile
from benchmarks.negatives.variants import VARIANTS

ROUND_TO = 16
"""Steps: each quarter has four reports, and the last one falls on its end."""

SEARCH_SEED = 1_000
"""Of a search: no seed of a run."""

REFERENCE = "atc"


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        data: name in :data:`~benchmarks.negatives.data.DATA`.
        variant: name in :data:`~benchmarks.negatives.variants.VARIANTS`.
        batch: pairs, of those in chunks the pairs at once.
        seed: of everything.
        factor: of the learning rate that a search tries; None for a run that counts.
    """

    data: str
    variant: str
    batch: int
    seed: int
    factor: float | None = None

    @property
    def name(self) -> str:
        """Of its folder, below that of the bench."""
        slug = self.variant.replace(",", "").replace(" ", "_")
        last = f"seed_{self.seed}" if self.factor is None else f"rate_{self.factor:g}"
        kind = "runs" if self.factor is None else "search"
        return f"{kind}/{self.data}_{self.batch}/{slug}/{last}"

    @property
    def values(self) -> dict[str, Any]:
        """What its row is known by."""
        shared = {"data": self.data, "variant": self.variant, "batch": self.batch}
        return {
            **shared,
            **({"seed": self.seed} if self.factor is None else {"factor": self.factor}),
        }

    def needs(self) -> list[Run]:
        """The runs that have to be finished before it: of a search, and a teacher."""
        if self.factor is not None:
            return []
        needed = searches(*searched(self.data, self.variant, self.batch))
        teacher = self.teacher()
        return needed if teacher is None else [*needed, teacher]

    def teacher(self) -> Run | None:
        """The run that teaches this one."""
        name = VARIANTS[self.variant].teacher
        return None if name is None else Run(self.data, name, self.batch, self.seed)


def searched(data: str, variant: str, batch: int) -> tuple[str, str, int]:
    """The data, the variant and the batch whose learning rate a run takes."""
    own = VARIANTS[variant]
    return DATA[data].rates_of or data, own.rate_of or variant, own.pairs(batch)


def searches(data: str, variant: str, batch: int) -> list[Run]:
    """The runs of a search."""
    return [Run(data, variant, batch, SEARCH_SEED, factor) for factor in RATES]


def planned(
    data: Sequence[str], variants: Sequence[str], batches: Sequence[int], seeds: Iterable[int]
) -> list[Run]:
    """All runs, seed after seed and within one the most wanted first; what one needs comes before
    it."""
    wanted = [
        Run(name, variant, batch, seed)
        for seed in seeds
        for batch in batches
        for tier in sorted({VARIANTS[variant].tier for variant in variants})
        for name in data
        for variant in variants
        if VARIANTS[variant].tier == tier and VARIANTS[variant].pairs(batch) in DATA[name].settings
    ]
    ordered: dict[Run, None] = {}
    for run in wanted:
        for needed in (*run.needs(), run):
            ordered.setdefault(needed)
    return list(ordered)


def ready(waiting: Sequence[Run], unfinished: Collection[Run]) -> Iterator[Run]:
    """The runs of ``waiting`` that need none of ``unfinished``."""
    for run in waiting:
        if not any(needed in unfinished for needed in run.needs()):
            yield run


def budget(prices: Mapping[str, Price], data: str, batch: int, share: float = 1.0) -> float:
    """Seconds that each run may take: those of the steps of ``atc``."""
    return prices[REFERENCE].seconds * DATA[data].settings[batch].steps * share


def share(run: Run) -> float:
    """Of the time of a whole run."""
    return 1.0 if run.factor is None else SEARCHED


def expected_start(run: Run, rows: RowFile, late: bool) -> int:
    """Step at which the matching loss will begin, as far as the run says itself or earlier ones of
    its kind tell: their median. 0 before anything is known.

    Args:
        run: the run.
        rows: finished runs.
        late: whether there may be steps before it.
    """
    if not late:
        return 0
    options = VARIANTS[run.variant].options
    if isinstance(options.get("atm_start"), int):
        return int(options["atm_start"])
    same = [x for x in rows.all() if all(x[k] == v for k, v in run.values.items() if k != "seed")]
    starts = [x["start"] for x in same if x.get("start") is not None]
    return round(statistics.median(starts)) if starts else 0


def steps(run: Run, price: Price, seconds: float, start: int) -> int:
    """Steps of a run that takes ``seconds``, in quarters of quarters."""
    auto = "atm_start" not in VARIANTS[run.variant].options
    made = price.steps(seconds, start, 1 - LAST_PART if auto else 0.0)
    return max(ROUND_TO, round(made / ROUND_TO) * ROUND_TO)


def learning_rate(run: Run, rates: RowFile) -> float:
    """The rate of a run: one that is tried, or the one with which a search came furthest on
    validation.

    Raises:
        LookupError: where no run of the search is finished.
    """
    around = DATA[run.data].settings[VARIANTS[run.variant].pairs(run.batch)].lr
    if run.factor is not None:
        return around * run.factor
    data, variant, batch = searched(run.data, run.variant, run.batch)
    found = [
        row
        for factor in RATES
        if (row := rates.find(data=data, variant=variant, batch=batch, factor=factor))
    ]
    if not found:
        raise LookupError(f"no run of the search for {variant} on {data}, batch {batch}")
    return around * float(max(found, key=best_score)["factor"])


def best_score(row: Row) -> float:
    """R-sum of the best validation."""
    return max(row["valid"])
