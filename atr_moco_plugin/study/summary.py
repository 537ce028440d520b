"""Means over seeds by queue size, and the queue size they recommend."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.rank.growth import Growth, growth
from atr_moco_plugin.study.results import MODALITIES, RunResult, read_run

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
    """

    mean: float
    std: float
    values: tuple[float, ...]

    @staticmethod
    def of(values: Iterable[float]) -> Seeds:
        """Mean and standard deviation of one value or more."""
        values = tuple(values)
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        return Seeds(statistics.fmean(values), std, values)

    def __str__(self) -> str:
        spread = f" ± {self.std:.1f}" if len(self.values) > 1 else ""
        return f"{self.mean:.1f}{spread}"


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
    """

    queue_size: int
    seeds: tuple[int, ...]
    r_sum: Mapping[str, Seeds]
    reranked_r_sum: Mapping[str, Seeds]
    queue: Mapping[str, Ranks]
    held_out: Mapping[str, Ranks]
    history: Mapping[str, tuple[tuple[int, float], ...]]
    exceeds_training: bool | None

    @property
    def filled(self) -> bool:
        """Whether training was long enough to fill the queue."""
        return all(ranks.rows >= self.queue_size for ranks in self.queue.values())


@dataclass(frozen=True)
class Step:
    """From one queue size to the next.

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
class Variant:
    """A comparison of queue sizes with all else equal.

    Attributes:
        momentum: EMA factor.
        positives: which items count as positives.
        sizes: ascending.
        steps: between neighbouring sizes above 0.
        recommended: the size by the rule, None with fewer than two sizes above 0.
    """

    momentum: float
    positives: str
    sizes: tuple[SizeSummary, ...]
    steps: tuple[Step, ...]
    recommended: SizeSummary | None

    def best(self, split: str) -> SizeSummary:
        """The size with the best mean R-sum on a split."""
        return max(self.sizes, key=lambda size: size.r_sum[split].mean)


@dataclass(frozen=True)
class Study:
    """Everything a rank study found.

    Attributes:
        valid_split: name of the validation split; all choices are made by its figures.
        train_pairs: pairs of an epoch, None if not known.
        variants: one for each momentum and positives mode.
        chance: split to R-sum of chance.
    """

    valid_split: str
    train_pairs: int | None
    variants: tuple[Variant, ...]
    chance: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, with the rule's verdict on every step."""
        result = asdict(self)
        for variant, of_variant in zip(self.variants, result["variants"], strict=True):
            size = variant.recommended
            of_variant["recommended"] = None if size is None else size.queue_size
            of_variant["best_r_sum"] = variant.best(self.valid_split).queue_size
            for step, of_step in zip(variant.steps, of_variant["steps"], strict=True):
                of_step["worth_it"] = step.worth_it
        return result


def aggregate(folders: Iterable[Path]) -> Study:
    """Read run folders and summarise them; which run is which is in their ``config.yaml``.

    Raises:
        ValueError: when there is none, one is not a finished run, or two are the same run.
    """
    return summarise([read_run(folder) for folder in folders])


def summarise(runs: Sequence[RunResult]) -> Study:
    """Means over seeds, steps between sizes and recommendations.

    Raises:
        ValueError: when there is no run, or two of one size, seed, momentum and positives mode.
    """
    if not runs:
        raise InputError("The study has no finished run yet.")
    seen: dict[tuple[object, ...], str] = {}
    for run in runs:
        key = (*run.variant, run.queue_size, run.seed)
        if key in seen:
            raise InputError(f"{seen[key]} and {run.name} are runs of one configuration and seed.")
        seen[key] = run.name
    pairs = next((run.train_pairs for run in runs if run.train_pairs is not None), None)
    return Study(
        valid_split=next(iter(runs[0].r_sum)),
        train_pairs=pairs,
        variants=tuple(
            _variant([run for run in runs if run.variant == variant], pairs)
            for variant in sorted({run.variant for run in runs})
        ),
        chance=runs[0].chance,
    )


def _variant(runs: Sequence[RunResult], pairs: int | None) -> Variant:
    sizes = tuple(
        _size([run for run in runs if run.queue_size == size], pairs)
        for size in sorted({run.queue_size for run in runs})
    )
    with_queue = [size for size in sizes if size.queue]
    steps = tuple(
        _step(before, after) for before, after in zip(with_queue, with_queue[1:], strict=False)
    )
    # The first size from which the next is not worth it.
    index = next((i for i, step in enumerate(steps) if not step.worth_it), len(steps))
    return Variant(
        momentum=runs[0].momentum,
        positives=runs[0].positives,
        sizes=sizes,
        steps=steps,
        recommended=with_queue[index] if steps else None,
    )


def _size(runs: Sequence[RunResult], pairs: int | None) -> SizeSummary:
    runs = sorted(runs, key=lambda run: run.seed)
    size = runs[0].queue_size
    return SizeSummary(
        queue_size=size,
        seeds=tuple(run.seed for run in runs),
        r_sum=_over_seeds([run.r_sum for run in runs]),
        reranked_r_sum=_over_seeds([run.reranked_r_sum for run in runs]),
        queue=_ranks([run.queue for run in runs]),
        held_out=_ranks([run.held_out for run in runs]),
        history={name: _history(runs, name) for name in MODALITIES if runs[0].queue},
        exceeds_training=None if pairs is None else size > pairs,
    )


def _over_seeds(figures: Sequence[Mapping[str, float]]) -> dict[str, Seeds]:
    return {
        name: Seeds.of(run[name] for run in figures)
        for name in figures[0]
        if all(name in run for run in figures)
    }


def _ranks(records: Sequence[Mapping[str, Any]]) -> dict[str, Ranks]:
    return {
        name: _rank([record[name] for record in records])
        for name in MODALITIES
        if all(name in record for record in records)
    }


def _rank(sources: Sequence[Mapping[str, Any]]) -> Ranks:
    def over(read: Callable[[Mapping[str, Any], str, str], float]) -> dict[str, Seeds]:
        return {
            name: Seeds.of(read(source, *where) for source in sources)
            for name, where in MEASURES.items()
        }

    spectra = zip(*(source["centered"]["spectrum"] for source in sources), strict=False)
    random = over(lambda source, kind, key: source[kind]["random"][key])
    return Ranks(
        rows=min(source["rows"] for source in sources),
        dim=sources[0]["dim"],
        measures=over(lambda source, kind, key: source[kind][key]),
        random={name: figure.mean for name, figure in random.items()},
        spectrum=tuple(statistics.fmean(values) for values in spectra),
    )


def _history(runs: Sequence[RunResult], modality: str) -> tuple[tuple[int, float], ...]:
    """Means at the steps that every seed has."""
    curves = [
        {
            step: sources[modality]["centered"]["rankme"]
            for step, sources in run.history
            if modality in sources
        }
        for run in runs
    ]
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    return tuple((step, statistics.fmean(curve[step] for curve in curves)) for step in shared)


def _step(before: SizeSummary, after: SizeSummary) -> Step:
    def gained(name: str) -> Growth:
        short, long = before.queue[name], after.queue[name]
        measure = "rankme_centered"
        ranks = short.measures[measure].mean, long.measures[measure].mean
        return growth((short.rows, long.rows), ranks, short.dim)

    return Step(
        (before.queue_size, after.queue_size),
        {name: gained(name) for name in before.queue if name in after.queue},
        beyond_epoch=bool(after.exceeds_training),
    )
