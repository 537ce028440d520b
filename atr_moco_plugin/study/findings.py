"""What a study found, as records: figures by queue size, steps between sizes, a recommendation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from math import isfinite, sqrt
from typing import Any

from atr_moco_plugin.evaluation.student import t_quantile
from atr_moco_plugin.rank.growth import Growth

MEASURES = {
    "rankme_centered": ("centered", "rankme"),
    "rankme_raw": ("raw", "rankme"),
    "participation_ratio_centered": ("centered", "participation_ratio"),
    "stable_rank_centered": ("centered", "stable_rank"),
}
"""Name of a measure to where a rank record has it."""


@dataclass(frozen=True)
class Seeds:
    """A figure over the seeds.

    Attributes:
        mean: of the values.
        std: sample standard deviation, 0 for one value.
        values: one a seed.
        interval: 95 % interval of the mean over seeds by Student's t; None for one value.
    """

    mean: float
    std: float
    values: tuple[float, ...]
    interval: tuple[float, float] | None = None

    @staticmethod
    def of(values: Iterable[float]) -> Seeds:
        """Mean, standard deviation and interval of one value or more."""
        values = tuple(values)
        mean = statistics.fmean(values)
        if len(values) < 2:
            return Seeds(mean, 0.0, values)
        std = statistics.stdev(values)
        half = _t(len(values) - 1) * std / sqrt(len(values))
        return Seeds(mean, std, values, (mean - half, mean + half))

    def __str__(self) -> str:
        spread = f" ± {self.std:.1f}" if len(self.values) > 1 else ""
        return f"{self.mean:.1f}{spread}"


@cache
def _t(freedom: int) -> float:
    return t_quantile(0.975, freedom)


@dataclass(frozen=True)
class Ranks:
    """Rank of the matrices of one modality.

    Attributes:
        rows: of each matrix; the smallest where seeds differ.
        dim: embedding size.
        measures: measure to its figure.
        random: measure to its value for random unit vectors of the same shape.
        spectrum: singular values of the centred rows, divided by the largest; mean over seeds.
    """

    rows: int
    dim: int
    measures: Mapping[str, Seeds]
    random: Mapping[str, float]
    spectrum: tuple[float, ...]


@dataclass(frozen=True)
class SizeSummary:
    """What the runs with one queue size found.

    Attributes:
        queue_size: rows of the queues.
        seeds: of the runs.
        r_sum: split to R-sum of the dual encoder.
        reranked_r_sum: the same after re-ranking.
        queue: modality to the rank of its queue at the last step.
        held_out: modality to the rank of the embeddings of the validation split.
        history: modality to ``(step, mean centred RankMe)`` of its queue during training.
        exceeds_training: whether it holds more rows than an epoch has pairs; None if not known.
        rows_in_loss: the most rows of a seed that were in the loss at the end; None if not known.
    """

    queue_size: int
    seeds: tuple[int, ...]
    r_sum: Mapping[str, Seeds]
    reranked_r_sum: Mapping[str, Seeds]
    queue: Mapping[str, Ranks]
    held_out: Mapping[str, Ranks]
    history: Mapping[str, tuple[tuple[int, float], ...]]
    exceeds_training: bool | None
    rows_in_loss: int | None = None

    @property
    def partly_used(self) -> bool:
        """Whether rows that are there stayed out of the loss, as `queue_warmup_steps` says."""
        return self.rows_in_loss is not None and self.rows_in_loss < min(self.rows, self.queue_size)

    @property
    def rows(self) -> int:
        """Rows that training wrote into the queue, the fewest of a seed and a modality."""
        return min((ranks.rows for ranks in self.queue.values()), default=0)

    @property
    def filled(self) -> bool:
        """Whether training was long enough to fill the queue."""
        return not self.queue or self.rows >= self.queue_size


@dataclass(frozen=True)
class Step:
    """From one queue size to the next, both of which were filled.

    Attributes:
        sizes: both.
        modalities: modality to what its queue gains.
        beyond_epoch: whether the longer queue holds more rows than an epoch has pairs. What it
            gains then is no new item: every item is in it more than once, as the encoder saw it at
            different times.
    """

    sizes: tuple[int, int]
    modalities: Mapping[str, Growth]
    beyond_epoch: bool

    @property
    def worth_it(self) -> bool:
        """Whether one modality gains within an epoch, which is enough, since both queues have one
        length."""
        return not self.beyond_epoch and any(g.worth_it for g in self.modalities.values())


@dataclass(frozen=True)
class AutoSummary:
    """What the runs with ``queue_size: auto`` found.

    Attributes:
        chosen: rows that the queues ended with, one a seed.
        seeds: of the runs.
        r_sum: split to R-sum of the dual encoder.
        reranked_r_sum: the same after re-ranking.
    """

    chosen: tuple[int, ...]
    seeds: tuple[int, ...]
    r_sum: Mapping[str, Seeds]
    reranked_r_sum: Mapping[str, Seeds]

    def beside(self, size: SizeSummary, split: str) -> Seeds | None:
        """By how much its R-sum on a split is ahead of a fixed size, seed by seed; None without a
        seed in common."""
        own = dict(zip(self.seeds, self.r_sum[split].values, strict=True))
        other = dict(zip(size.seeds, size.r_sum[split].values, strict=True))
        shared = sorted(own.keys() & other.keys())
        return Seeds.of(own[seed] - other[seed] for seed in shared) if shared else None


@dataclass(frozen=True)
class Variant:
    """A comparison of queue sizes with all else equal.

    Attributes:
        keys: which encoder makes the rows of the queue.
        momentum: EMA factor of momentum keys.
        positives: which items count as positives.
        sizes: ascending.
        steps: between neighbouring sizes above 0, up to the last that was filled.
        recommended: the size by the rule, None with fewer than two sizes above 0 that were filled.
        auto: what ``queue_size: auto`` found, None where it was not trained.
    """

    keys: str
    momentum: float
    positives: str
    sizes: tuple[SizeSummary, ...]
    steps: tuple[Step, ...]
    recommended: SizeSummary | None
    auto: AutoSummary | None = None

    def best(self, split: str) -> SizeSummary:
        """The size with the best mean R-sum on a split."""
        return max(self.sizes, key=lambda size: size.r_sum[split].mean)


@dataclass(frozen=True)
class Study:
    """Everything a rank study found.

    Attributes:
        valid_split: name of the validation split; all choices are made by its figures.
        train_pairs: pairs of an epoch, None if not known.
        variants: one for each kind of keys, momentum and positives mode.
        chance: split to R-sum of chance.
        left_out: folder of a finished run whose files cannot be read to the reason.
    """

    valid_split: str
    train_pairs: int | None
    variants: tuple[Variant, ...]
    chance: Mapping[str, float]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, with the rule's verdict on every step."""
        result = asdict(self)
        for variant, of_variant in zip(self.variants, result["variants"], strict=True):
            size = variant.recommended
            of_variant["recommended"] = None if size is None else size.queue_size
            best = variant.best(self.valid_split)
            of_variant["best_r_sum"] = best.queue_size
            if variant.auto is not None:
                beside = variant.auto.beside(best, self.valid_split)
                of_variant["auto"]["beside_best"] = None if beside is None else asdict(beside)
            for step, of_step in zip(variant.steps, of_variant["steps"], strict=True):
                of_step["worth_it"] = step.worth_it
                for growth in of_step["modalities"].values():
                    # JSON has no infinity, which is the gain over a queue of equal rows.
                    growth["gain"] = growth["gain"] if isfinite(growth["gain"]) else None
        return result
