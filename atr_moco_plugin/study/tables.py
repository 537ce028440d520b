"""The tables of a study, and what a reader has to know about their figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atr_moco_plugin.evaluation.result_tables import MATRICES, RANK_COLUMNS
from atr_moco_plugin.evaluation.tables import Table
from atr_moco_plugin.study.findings import MEASURES, AutoSummary, Seeds, SizeSummary, Study, Variant
from atr_moco_plugin.study.verdict import RULE

MEASURE_TITLES = {
    name: f"{RANK_COLUMNS[measure]}, {MATRICES[matrix]}"
    for name, (matrix, measure) in MEASURES.items()
}
"""Name of a measure to its title, such as ``"RankMe, centred"``."""


def notes(study: Study, failed: Sequence[str] = ()) -> list[str]:
    """What a reader has to know about the figures.

    Args:
        study: what was found.
        failed: names of runs that are missing.
    """
    sizes = [size for variant in study.variants for size in variant.sizes]
    chance = ", ".join(f"{value:.1f} on {name}" for name, value in study.chance.items())
    found = [
        RULE,
        "Figures are means ± standard deviation over the seeds, in brackets the 95 % interval of "
        "the mean (Student's t). R-sum is R@1 + R@5 + R@10 of the dual encoder in both directions, "
        f"of 600; chance has {chance}.",
    ]
    if any(size.exceeds_training for size in sizes):
        found.append(
            f"* longer than the training set: an epoch has {study.train_pairs:,} pairs, so the "
            "queue holds items more than once."
        )
    if not all(size.filled for size in sizes):
        found.append("† never filled: the runs end before the queue is full.")
    if partly := [size for size in sizes if size.partly_used]:
        rows = ", ".join(f"{size.rows_in_loss:,} of {size.queue_size:,}" for size in partly)
        found.append(
            f"‡ not all rows were in the loss at the end, at most {rows}: the older ones tell "
            "their age (`queue_warmup_steps`), so that R-sum is of a shorter queue."
        )
    if failed:
        found.append(f"Failed and not in here: {', '.join(failed)}.")
    found += [f"Left out: {reason}" for reason in study.left_out.values()]
    return found


def variant_title(variant: Variant) -> str:
    """What sets a variant apart from the others."""
    kind = "Online keys" if variant.keys == "online" else f"Momentum {variant.momentum:g}"
    return f"{kind}, positives {variant.positives}"


def size_label(size: SizeSummary) -> str:
    """A queue size with its marks: * longer than the training set, † never filled, ‡ not all of it
    in the loss."""
    marks = ("*" if size.exceeds_training else "") + ("" if size.filled else "†")
    marks += "‡" if size.partly_used else ""
    return f"{size.queue_size:,}{marks}"


def variant_tables(study: Study, variant: Variant) -> Iterator[Table]:
    """Retrieval, ranks of queues and of held-out embeddings, and the rule step by step."""
    yield _retrieval(variant)
    for which, caption in (
        ("queue", "Rank of the queues at the last step / of random unit vectors of the same shape"),
        (
            "held_out",
            f"Rank of the embeddings of {study.valid_split}, as many for every queue size / of "
            "random unit vectors",
        ),
    ):
        rows = [
            [size_label(size), modality, f"{ranks.rows:,}"]
            + [f"{ranks.measures[name]} / {ranks.random[name]:.1f}" for name in MEASURES]
            for size in variant.sizes
            for modality, ranks in getattr(size, which).items()
        ]
        if rows:
            header = ["queue", "modality", "rows", *MEASURE_TITLES.values()]
            yield Table(header, rows, caption)
    if variant.steps:
        yield _steps(variant)


def _retrieval(variant: Variant) -> Table:
    every: list[SizeSummary | AutoSummary] = [*variant.sizes]
    labels = [size_label(size) for size in variant.sizes]
    if variant.auto is not None:
        every.append(variant.auto)
        labels.append("auto: " + " ".join(f"{rows:,}" for rows in variant.auto.chosen))
    columns = {"queue": labels}
    for kind, attribute in (("R-sum", "r_sum"), ("re-ranked", "reranked_r_sum")):
        figures = [getattr(size, attribute) for size in every]
        for split in figures[0]:
            columns[f"{kind} {split}"] = [_with_interval(of.get(split)) for of in figures]
    columns["seeds"] = [" ".join(map(str, size.seeds)) for size in every]
    return Table(
        header=list(columns),
        rows=list(map(list, zip(*columns.values(), strict=True))),
        caption="Retrieval by queue size",
    )


def _with_interval(figure: Seeds | None) -> str:
    if figure is None:
        return "-"
    if figure.interval is None:
        return str(figure)
    return f"{figure} [{figure.interval[0]:.1f}, {figure.interval[1]:.1f}]"


def _steps(variant: Variant) -> Table:
    rows = []
    for step in variant.steps:
        gains = (
            f"{growth} / {100 * growth.noise_gain:.1f} %" for growth in step.modalities.values()
        )
        answer = "longer than an epoch" if step.beyond_epoch else "yes" if step.worth_it else "no"
        rows.append([f"{step.sizes[0]:,} to {step.sizes[1]:,}", *gains, answer])
    return Table(
        header=["rows", *variant.steps[0].modalities, "worth it"],
        rows=rows,
        caption="The rule step by step: gain of the queues' centred RankMe per doubling / of "
        "random vectors",
    )
