"""Means over seeds by queue size, and the queue size they recommend."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.rank.growth import Growth, growth
from atr_moco_plugin.study.findings import (
    MEASURES,
    AutoSummary,
    Ranks,
    Seeds,
    SizeSummary,
    Step,
    Study,
    Variant,
)
from atr_moco_plugin.study.results import MODALITIES, RunResult, read_run


def aggregate(folders: Iterable[Path]) -> Study:
    """Read run folders and summarise them; which run is which is in their ``config.yaml``.

    One that is not a finished run is left out, with the reason.

    Raises:
        InputError: when there is none, none is a finished run, or two are the same run.
    """
    runs, left_out = [], {}
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except InputError as ex:
            left_out[str(folder)] = str(ex)
    if left_out and not runs:
        raise InputError(next(iter(left_out.values())))
    try:
        return replace(summarise(runs), left_out=left_out)
    except InputError as ex:
        reasons = "".join(f" Left out: {reason}" for reason in left_out.values())
        raise InputError(f"{ex}{reasons}") from ex


def summarise(runs: Sequence[RunResult]) -> Study:
    """Means over seeds, steps between sizes and recommendations.

    Raises:
        InputError: when there is no run, none of a fixed size beside one of ``auto``, or two of one
            size, seed, keys, momentum and positives mode.
    """
    if not runs:
        raise InputError("The study has no finished run yet.")
    seen: dict[tuple[object, ...], str] = {}
    for run in runs:
        key = (*run.variant, "auto" if run.auto else run.queue_size, run.seed)
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


def _variant(every: Sequence[RunResult], pairs: int | None) -> Variant:
    runs = [run for run in every if not run.auto]
    if not runs:
        raise InputError(f"{every[0].name} has no run of a fixed queue size beside it yet.")
    sizes = tuple(
        _size([run for run in runs if run.queue_size == size], pairs)
        for size in sorted({run.queue_size for run in runs})
    )
    with_queue = [size for size in sizes if size.queue]
    # What a queue that was never filled would show is not known, nor what follows from it.
    filled = list(takewhile(lambda size: size.filled, with_queue))
    steps = tuple(_step(before, after) for before, after in zip(filled, filled[1:], strict=False))
    # The first size from which the next is not worth it.
    index = next((i for i, step in enumerate(steps) if not step.worth_it), len(steps))
    return Variant(
        keys=runs[0].keys,
        momentum=runs[0].momentum,
        positives=runs[0].positives,
        sizes=sizes,
        steps=steps,
        recommended=filled[index] if steps else None,
        auto=_auto([run for run in every if run.auto]),
    )


def _auto(runs: Sequence[RunResult]) -> AutoSummary | None:
    if not runs:
        return None
    runs = sorted(runs, key=lambda run: run.seed)
    return AutoSummary(
        chosen=tuple(run.queue_size for run in runs),
        seeds=tuple(run.seed for run in runs),
        r_sum=_over_seeds([run.r_sum for run in runs]),
        reranked_r_sum=_over_seeds([run.reranked_r_sum for run in runs]),
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
        rows_in_loss=max((x for run in runs if (x := run.rows_in_loss) is not None), default=None),
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
