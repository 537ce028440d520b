"""The tables of an analysis, for the page and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from atr_moco_plugin.evaluation.result_tables import (
    MATRICES,
    RANK_COLUMNS,
    RETRIEVAL_COLUMNS,
    cell,
)
from atr_moco_plugin.evaluation.tables import Table

Record = Mapping[str, Any]


def within_tables(result: Record) -> list[Table]:
    """Rank measures, then uniformity, dimension and hubs of each side.

    Args:
        result: of :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    return [_rank(result), _sides(result)]


def between_tables(result: Record) -> list[Table]:
    """What both sides share; empty for one side.

    Args:
        result: of :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    if "pairs" not in result:
        return []
    rows = list(_shared(result))
    return [
        Table(
            ["", "measured", "unrelated", "over"],
            rows,
            "What both sides share",
            notes=[_level(result["cross_covariance"])] if result["cross_covariance"] else [],
        )
    ]


def _level(cross: Record) -> str:
    shuffles = cross["shuffled"]["shuffles"]
    return (
        f"Noise is the largest axis of {shuffles} shuffles: 1 in {shuffles + 1} unrelated data "
        "sets has one above it."
    )


def retrieval_tables(result: Record) -> list[Table]:
    """Retrieval by cosine, and along the shared axes; without those that were left out.

    Args:
        result: of :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    tables = []
    found = result.get("retrieval")
    if found:
        rows = [*_with_interval("cosine", found), _figures("chance", found["chance"])]
        caption = f"Retrieval by cosine, {_size(result, found)}"
        tables.append(_retrieval(result, rows, caption, list(_hub_notes(result, found))))
    found = result.get("retrieval_by_axes")
    if found:
        rows = [_figures(f"{int(n):,} axes", figures) for n, figures in found["axes"].items()]
        if found["cosine"] is not None:
            rows += _with_interval("cosine", found)
        rows.append(_figures("chance", found["chance"]))
        caption = (
            f"Retrieval by axes kept, {_size(result, found)}; axes of "
            f"{found['fitted_on']:,} other pairs"
        )
        tables.append(_retrieval(result, rows, caption))
    return tables


def terminal_report(result: Record) -> str:
    """The tables and notes as text, at most 100 columns wide for names of up to 18 characters.

    Args:
        result: of :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    tables = [*within_tables(result), *between_tables(result), *retrieval_tables(result)]
    parts = [f"{table.caption}\n{table.text()}" for table in tables]
    if result["notes"]:
        parts.append("\n".join(f"Note: {note}" for note in result["notes"]))
    return "\n\n".join(parts)


def _rank(result: Record) -> Table:
    rows = []
    for name, source in result["rank"]["sources"].items():
        for kind, word in MATRICES.items():
            of = source[kind], source[kind]["random"]
            cells = [
                " / ".join(cell(x[key], 2 if key == "alpha_req" else 1) for x in of)
                for key in RANK_COLUMNS
            ]
            rows.append([f"{name}, {word}", *cells])
    return Table(
        header=["measured / random", *RANK_COLUMNS.values()],
        rows=rows,
        caption="Rank, beside random unit vectors of the same shape",
    )


def _sides(result: Record) -> Table:
    rows: dict[str, list[str]] = {
        name: [] for name in ("uniformity", "dimension", "hub skewness", "never found", "largest")
    }
    for name in result["sides"]:
        uniform, dimension, hubs = (
            result[key][name] or {} for key in ("uniformity", "dimension", "hubness")
        )
        random_hubs = hubs["random"]
        rows["uniformity"] += _three(uniform, 3)
        rows["dimension"] += _three(dimension, 1)
        for title, key, digits in (
            ("hub skewness", "skewness", 2),
            ("never found", "never", 1),
            ("largest", "largest", 0),
        ):
            percent = " %" if key == "never" else ""
            rows[title] += [
                *(cell(of[key], digits) + percent for of in (hubs, random_hubs)),
                cell(hubs["rows"], 0),
            ]
    titles = {"dimension": "TwoNN dimension", "largest": "largest hub"}
    return Table(
        header=["", *(["measured", "random", "rows"] * len(result["sides"]))],
        rows=[[titles.get(title, title), *cells] for title, cells in rows.items()],
        caption="Each side alone, beside random unit vectors of the same shape",
        groups=[("", 1), *((name, 3) for name in result["sides"])],
    )


def _three(measure: Record, digits: int) -> list[str]:
    return [
        *(cell(measure.get(key), digits) for key in ("value", "random")),
        cell(measure.get("rows"), 0),
    ]


def _shared(result: Record) -> Iterator[list[str]]:
    gap, align, cka, mutual, angles, cross = (
        result[key]
        for key in (
            "gap",
            "alignment",
            "cka",
            "mutual_neighbours",
            "principal_angles",
            "cross_covariance",
        )
    )
    if gap:
        rows = " and ".join(f"{n:,}" for n in gap["rows"])
        yield ["modality gap", cell(gap["value"], 3), cell(gap["random"], 3), f"{rows} rows"]
    if align:
        cells = [cell(align[key], 3) for key in ("value", "shuffled")]
        yield ["alignment", *cells, f"{align['pairs']:,} pairs"]
    if cka:
        size = f"{cka['pairs']:,} pairs"
        yield ["linear CKA", cell(cka["linear"], 3), cell(cka["shuffled"], 3), size]
        yield ["linear CKA, debiased", cell(cka["debiased"], 3), cell(0.0, 3), size]
    if mutual:
        cells = [cell(mutual[key], 3) for key in ("value", "random")]
        yield [f"mutual {mutual['k']} neighbours", *cells, f"{mutual['pairs']:,} pairs"]
    if cross:
        cells = [cell(cross["above_shuffled"], 0), cell(0, 0)]
        yield ["shared axes above noise", *cells, f"{cross['pairs']:,} pairs"]
        cells = [cell(of["rankme"], 1) for of in (cross, cross["shuffled"])]
        yield ["RankMe of the cross-covariance", *cells, f"{cross['pairs']:,} pairs"]
    if angles:
        cells = [cell(angles[key], 3) for key in ("overlap", "random_overlap")]
        axes = " and ".join(map(str, angles["axes"]))
        yield ["overlap of principal subspaces", *cells, f"{axes} axes"]


def _retrieval(
    result: Record, rows: list[list[str]], caption: str, notes: list[str] | None = None
) -> Table:
    first, second = result["sides"]
    ways = (f"{first} → {second}", f"{second} → {first}")
    return Table(
        header=["", *(title for _ in ways for title in RETRIEVAL_COLUMNS.values()), "R-sum"],
        rows=rows,
        caption=caption,
        groups=[("", 1), *((way, len(RETRIEVAL_COLUMNS)) for way in ways), ("", 1)],
        notes=notes or [],
    )


def _figures(name: str, figures: Record) -> list[str]:
    keys = [f"{way}_{key}" for way in ("a2t", "t2a") for key in RETRIEVAL_COLUMNS]
    return [name, *(cell(figures.get(key), 1) for key in [*keys, "r_sum"])]


def _with_interval(name: str, found: Record) -> list[list[str]]:
    """The figures of a way to score, and the ends of their intervals below them."""
    intervals = found["intervals"][name]
    rows = [_figures(name, found[name])]
    if intervals:
        percent = f"{100 * found['intervals']['level']:.0f} %"
        for word, end in (("from", 0), ("to", 1)):
            ends = {key: interval[end] for key, interval in intervals.items()}
            rows.append([cell.replace("–", "") for cell in _figures(f"  {percent} {word}", ends)])
    return rows


def _size(result: Record, found: Record) -> str:
    sides = zip(found["rows"], result["sides"], strict=True)
    return " and ".join(f"{n:,} {name}" for n, name in sides)


def _hub_notes(result: Record, found: Record) -> Iterator[str]:
    first, second = result["sides"]
    for way, items in (("a2t", second), ("t2a", first)):
        hubs = found["hubness"][way]
        yield (
            f"Hubs of {items}, first {hubs['k']}: skewness {hubs['skewness']:.2f}, "
            f"{hubs['never']:.1f} % never found, largest {hubs['largest']:,.0f} "
            f"(mean {hubs['mean']:.1f})."
        )
