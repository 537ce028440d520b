"""What the rows say, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from atr_moco_plugin.data.sets.scenes import SEEN
from atr_moco_plugin.evaluation import Table
from benchmarks.negatives.intervals import Interval, mean
from benchmarks.negatives.plan import REFERENCE
from benchmarks.negatives.rows import Row, is_stale
from benchmarks.negatives.variants import VARIANTS

Figure = Callable[[Row, str], float | None]
"""Of a row on a split."""


Memory = Mapping[str, Mapping[str, float | None]]
"""MiB of a step by variant and batch size."""


def report(rows: Sequence[Row], memory: Memory | None = None) -> str:
    """A table for each data and batch size that there are rows of."""
    parts = []
    for data, batch in dict.fromkeys((row["data"], row["batch"]) for row in rows):
        own = [row for row in rows if (row["data"], row["batch"]) == (data, batch)]
        parts.append(f"### {data}, batch {batch}\n\n{table(own, memory or {}).markdown()}")
        if heard := [row for row in own if SEEN in row["dual"]]:
            title = f"### {data}, batch {batch}: scenes of the training recordings"
            parts.append(f"{title}\n\n{seen_table(heard).markdown()}")
    notes = _notes(rows)
    return "\n\n".join([*parts, *([notes] if notes else [])])


def table(rows: Sequence[Row], memory: Memory) -> Table:
    """One line a variant, of rows of one data and batch size.

    R-sum is that of the dual encoder on test, with Student's 95 % interval over seeds. Differences
    are to the runs of ``atc`` with the same seeds; that of the re-ranked figures too is to the dual
    encoder of ``atc``, which has no matching head.
    """
    found = by_variant(rows)
    reference = {row["seed"]: row for row in found.get(REFERENCE, [])}
    lines = []
    for variant, own in found.items():
        mib = memory.get(variant, {}).get(str(own[-1]["batch"]))
        lines.append([
            variant + ("*" if any(map(is_stale, own)) else ""),
            str(len(own)),
            f"{own[-1]['lr']:g}",
            _mean([row["steps"] for row in own], "{:,.0f}"),
            _cost(own, reference),
            _mean([row["spent"] / row["budget"] for row in own], "{:.2f}"),
            "-" if mib is None else f"{mib / 1024:.2f}",
            *_figures(variant, own, reference, "test"),
            _measured(own, "held_out_audio_centered_rankme"),
            _measured(own, "queue_audio_centered_rankme"),
            _measured(own, "queue_audio_same_1x", "{:.2f}"),
            _starts(own),
        ])  # fmt: skip
    header = [
        "criterion", "seeds", "rate", "steps", "cost of a step", "time", "GiB a step",
        *_FIGURES, "RankMe held out", "of the queue", "oldest key",
        "matching from",
    ]  # fmt: skip
    return Table(header, lines)


def seen_table(rows: Sequence[Row]) -> Table:
    """R-sum on new scenes of the recordings that were trained on, as :func:`table` has that on
    test."""
    found = by_variant(rows)
    reference = {row["seed"]: row for row in found.get(REFERENCE, [])}
    lines = [
        [variant, str(len(own)), *_figures(variant, own, reference, SEEN)]
        for variant, own in found.items()
    ]
    return Table(["criterion", "seeds", *_FIGURES], lines)


_FIGURES = ("R-sum", "to atc", "re-ranked", "to atc")


def _figures(
    variant: str, own: Sequence[Row], reference: Mapping[int, Row], split: str
) -> list[str]:
    return [
        _interval([dual(row, split) for row in own]),
        _difference(own, reference, dual, split) if variant != REFERENCE else "-",
        _interval([x for row in own if (x := reranked(row, split)) is not None]),
        _difference(own, reference, reranked, split),
    ]


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each variant by seed, in the order of the table of variants."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault(row["variant"], []).append(row)
    known = [name for name in VARIANTS if name in found]
    return {name: found[name] for name in [*known, *(found.keys() - VARIANTS.keys())]}


def dual(row: Row, split: str = "test") -> float:
    """R-sum of the dual encoder."""
    return float(row["dual"][split]["r_sum"])


def reranked(row: Row, split: str = "test") -> float | None:
    """R-sum with re-ranking; None where nothing re-ranks."""
    return None if row["reranked"] is None else float(row["reranked"][split]["r_sum"])


def difference(
    rows: Sequence[Row],
    reference: Mapping[int, Row],
    figure: Figure = dual,
    split: str = "test",
) -> Interval | None:
    """Mean difference of a figure to the dual encoder of ``reference`` on a split, seed by seed;
    None without a pair."""
    pairs = [
        value - dual(reference[row["seed"]], split)
        for row in rows
        if row["seed"] in reference and (value := figure(row, split)) is not None
    ]
    return mean(pairs) if pairs else None


def _difference(
    rows: Sequence[Row], reference: Mapping[int, Row], figure: Figure, split: str
) -> str:
    found = difference(rows, reference, figure, split)
    if found is None:
        return "-"
    sign = "+" if found.value > 0 else ""
    return sign + found.text()


def _interval(values: Sequence[float]) -> str:
    return mean(values).text() if values else "-"


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(sum(values) / len(values)) if values else "-"


def _measured(rows: Sequence[Row], name: str, form: str = "{:.1f}") -> str:
    return _mean([x for row in rows if (x := row["measures"].get(name)) is not None], form)


def _cost(rows: Sequence[Row], reference: dict[int, Row]) -> str:
    """Seconds of a step in those of ``atc``; before the matching loss begins and from then on."""
    first = next(iter(reference.values()), None)
    if first is None:
        return "-"
    price, unit = rows[-1]["price"], first["price"]["seconds"]
    both = [x for x in (price["waiting"], price["seconds"]) if x is not None]
    return ", then ".join(f"{x / unit:.2f}" for x in both)


def _starts(rows: Sequence[Row]) -> str:
    starts = [row["start"] for row in rows if row["start"] is not None]
    return _mean(starts, "{:,.0f}") if any(starts) else "-"


def _notes(rows: Sequence[Row]) -> str:
    return "\n".join(_sentences(rows))


def _sentences(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield (
            "Means over seeds with Student's 95 % intervals, paired by seed in the differences. "
            "Cost is in steps of `atc`, time in that of its whole run; memory is that of a step of "
            "the paper's models in float32. RankMe is of centred audio embeddings. The oldest key "
            "is its cosine with a new one of the same clip."
        )
    if any(map(is_stale, rows)):
        yield "\\* Some rows were made by other code of their criterion than this checkout's."
