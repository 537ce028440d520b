"""The study in words and tables, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atr_moco_plugin.evaluation import format_table
from atr_moco_plugin.report.tables import Table
from atr_moco_plugin.study.summary import Ranks, Seeds, SizeSummary, Study, Variant
from atr_moco_plugin.study.verdict import RULE, verdict

MEASURE_TITLES = {
    "rankme_centered": "RankMe, centred",
    "rankme_raw": "RankMe, raw",
    "participation_ratio_centered": "participation ratio, centred",
    "stable_rank_centered": "stable rank, centred",
}
"""Name of a measure to what a reader sees."""


def study_markdown(study: Study, title: str, failed: Sequence[str] = ()) -> str:
    """The whole report.

    Args:
        study: what was found.
        title: first heading.
        failed: names of runs that are missing.
    """
    parts = [f"# {title}"]
    for variant in study.variants:
        if len(study.variants) > 1:
            parts.append(f"## {variant_title(variant)}")
        heading, ground = verdict(study, variant)
        parts.append(f"**{heading}** {ground}")
        for table in variant_tables(study, variant):
            rows = [[cell.replace("*", "\\*") for cell in row] for row in table.rows]
            parts += [f"{table.caption}:", format_table(table.header, rows, markdown=True)]
    parts += [note.replace("*", "\\*") for note in notes(study, failed)]
    return "\n\n".join(parts) + "\n"


def notes(study: Study, failed: Sequence[str] = ()) -> list[str]:
    """What a reader has to know about the figures."""
    sizes = [size for variant in study.variants for size in variant.sizes]
    chance = ", ".join(f"{value:.1f} on {name}" for name, value in study.chance.items())
    found = [
        RULE,
        "Figures are means ± standard deviation over the seeds. R-sum is R@1 + R@5 + R@10 of the "
        f"dual encoder in both directions, of 600; chance has {chance}.",
    ]
    if any(size.exceeds_training for size in sizes):
        found.append(
            f"* longer than the training set: an epoch has {study.train_pairs:,} pairs, so the "
            "queue holds items more than once."
        )
    if not all(size.filled for size in sizes):
        found.append("† never filled: the runs end before the queue is full.")
    if failed:
        found.append(f"Failed and not in here: {', '.join(failed)}.")
    return found


def variant_title(variant: Variant) -> str:
    """What sets a variant apart from the others."""
    return f"Momentum {variant.momentum:g}, positives {variant.positives}"


def size_label(size: SizeSummary) -> str:
    """A queue size with its marks: * longer than the training set, † never filled."""
    marks = ("*" if size.exceeds_training else "") + ("" if size.filled else "†")
    return f"{size.queue_size:,}{marks}"


def variant_tables(study: Study, variant: Variant) -> Iterator[Table]:
    """Retrieval, ranks of queues and of held-out embeddings, and the rule step by step."""
    yield _retrieval(variant)
    if any(size.queue for size in variant.sizes):
        yield _ranks(
            variant.sizes, "queue",
            "Rank of the queues at the last step / of random unit vectors of the same shape",
        )  # fmt: skip
    yield _ranks(
        variant.sizes, "held_out",
        f"Rank of the embeddings of {study.valid_split}, as many for every queue size / of random "
        "unit vectors",
    )  # fmt: skip
    if variant.steps:
        yield _steps(variant)


def _retrieval(variant: Variant) -> Table:
    sizes = variant.sizes
    header, columns = ["queue"], [[size_label(size) for size in sizes]]
    for kind, attribute in (("R-sum", "r_sum"), ("re-ranked", "reranked_r_sum")):
        for split in getattr(sizes[0], attribute):
            header.append(f"{kind} {split}")
            columns.append([_cell(getattr(size, attribute).get(split)) for size in sizes])
    header.append("seeds")
    columns.append([" ".join(map(str, size.seeds)) for size in sizes])
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table("Retrieval by queue size", [], header, rows)


def _ranks(sizes: Sequence[SizeSummary], which: str, caption: str) -> Table:
    rows = []
    for size in sizes:
        of_size: dict[str, Ranks] = getattr(size, which)
        for modality, ranks in of_size.items():
            figures = (
                f"{_cell(ranks.measures[name])} / {ranks.random[name]:.1f}"
                for name in MEASURE_TITLES
            )
            rows.append([size_label(size), modality, f"{ranks.rows:,}", *figures])
    return Table(caption, [], ["queue", "modality", "rows", *MEASURE_TITLES.values()], rows)


def _steps(variant: Variant) -> Table:
    rows = [
        [
            f"{step.sizes[0]:,} to {step.sizes[1]:,}",
            *(
                f"{100 * growth.gain:.1f} % / {100 * growth.noise_gain:.1f} %"
                for growth in step.modalities.values()
            ),
            "longer than an epoch" if step.beyond_epoch else "yes" if step.worth_it else "no",
        ]
        for step in variant.steps
    ]
    return Table(
        "The rule step by step: gain of the queues' centred RankMe per doubling / of random "
        "vectors",
        [],
        ["rows", *variant.steps[0].modalities, "worth it"],
        rows,
    )


def _cell(figure: Seeds | None) -> str:
    return "-" if figure is None else str(figure)
