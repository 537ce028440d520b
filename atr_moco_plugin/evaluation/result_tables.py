"""The tables of an evaluation: retrieval figures and the rank of the embeddings.

Results are read with patience, since the page of a run shows what a stopped run left: a figure that
is not there becomes a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from atr_moco_plugin.evaluation.tables import Table

DIRECTIONS = {"a2t": "audio → text", "t2a": "text → audio"}
"""Prefix of a retrieval figure to the direction of retrieval."""

RETRIEVAL_COLUMNS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "MedR", "map10": "mAP10"}
"""Name of a retrieval figure, after its direction, to its column title."""

RANK_COLUMNS = {
    "rankme": "RankMe",
    "participation_ratio": "part. ratio",
    "stable_rank": "stable rank",
    "count": "count",
    "alpha_req": "alpha",
}
"""Name of a rank measure to its column title."""

MATRICES = {"raw": "raw", "centered": "centred"}
"""Key of the two matrices that a rank record measures to the word for it."""

_RERANKED = {
    "reranked": "re-ranked",
    "reranked_blip": "re-ranked as BLIP",
    "reranked_albef": "re-ranked as ALBEF",
}


def retrieval_table(result: Mapping[str, Any], split: str = "") -> Table:
    """Retrieval figures of one split, a row for each way to rank, both directions side by side.

    Args:
        result: of :func:`~atr_moco_plugin.evaluation.retrieval.retrieval_figures`, or a split of
            ``retrieval.json``.
        split: its name, for the caption.

    Returns:
        R@k and mAP@10 in percent, the median rank, and the sum of the six R@k. Duplicate-aware
        figures have a row of their own, marked ``(dup)``. Chance is the last row. As text it is at
        most 100 columns wide where row names have up to 18 characters.
    """
    size = ", ".join(
        f"{cell(result[key], 0) if key in result else 'an unknown number of'} {key}"
        for key in ("clips", "captions")
    )
    return systems_table(_systems(result), f"{split}: {size}")


def systems_table(
    systems: Iterable[tuple[str, Mapping[str, Any]]], caption: str, notes: Sequence[str] = ()
) -> Table:
    """The columns of :func:`retrieval_table` for any ways to rank.

    Args:
        systems: row names and figures.
        caption: what the table shows.
        notes: lines below it.
    """
    rows = []
    for name, figures in systems:
        for mark, suffix in (("", ""), (" (dup)", "_dup")):
            if not suffix or f"r_sum{suffix}" in figures:
                rows.append([f"{name}{mark}", *_retrieval_cells(figures, suffix)])
    return Table(
        header=["", *(title for _ in DIRECTIONS for title in RETRIEVAL_COLUMNS.values()), "R-sum"],
        rows=rows,
        caption=caption,
        groups=[("", 1), *((way, len(RETRIEVAL_COLUMNS)) for way in DIRECTIONS.values()), ("", 1)],
        notes=notes,
    )


def rank_table(record: Mapping[str, Any], split: str = "") -> Table:
    """Rank measures of embeddings, each beside its value for random unit vectors of the same shape.

    Args:
        record: what :meth:`RankLogger.log <atr_moco_plugin.rank.logger.RankLogger.log>` returned,
            or a parsed line of ``rank.jsonl``.
        split: what was embedded, for the caption.

    Returns:
        A row for the raw and one for the centred matrix of each source; below it uniformity and
        fill of each source, alignment and modality gap of each pair.
    """
    rows, notes = [], []
    for name, source in (record.get("sources") or {}).items():
        for kind, word in MATRICES.items():
            measured = source.get(kind) or {}
            random = measured.get("random") or {}
            figures = [
                " / ".join(
                    cell(of.get(key), 2 if key == "alpha_req" else 1) for of in (measured, random)
                )
                for key in RANK_COLUMNS
            ]
            rows.append([f"{name}, {word}", cell(source.get("rows"), 0), *figures])
        note = f"{name}: uniformity {cell(source.get('uniformity'), 3)}"
        if source.get("fill") is not None:
            note += f", queue filled {100 * source['fill']:.1f} % of {source['queue_size']}"
        notes.append(note)
    for name, pair in (record.get("pairs") or {}).items():
        alignment, gap = (cell(pair.get(key), 3) for key in ("alignment", "modality_gap"))
        notes.append(f"{name}: alignment {alignment}, modality gap {gap}")
    return Table(
        header=["measured / random", "rows", *RANK_COLUMNS.values()],
        rows=rows,
        caption=f"{split}: rank of the embeddings beside random vectors of the same shape",
        notes=notes,
    )


def split_report(result: Mapping[str, Any]) -> str:
    """What a terminal shows of one split: its size, a table for each k, and the rank.

    Args:
        result: of :func:`~atr_moco_plugin.evaluation.retrieval.retrieval_figures`, with
            ``test_set``, the name of what was evaluated, and ``rank``, a record of
            :class:`~atr_moco_plugin.rank.logger.RankLogger`.
    """
    size = f"{result['clips']:,} clips, {result['captions']:,} captions"
    parts = [f"Retrieval on {result['test_set']}: {size}"]
    by_k = result.get("rerank", {})
    if not by_k:
        parts.append(retrieval_table(result).text())
    for k, figures in by_k.items():
        table = retrieval_table({**result, **figures, "rerank": {}})
        parts.append(f"The best {k} candidates re-ranked\n{table.text()}")
    parts.append(f"Rank of the embeddings\n{rank_table(result['rank']).text()}")
    return "\n\n".join(parts)


def cell(value: object, digits: int) -> str:
    """A number with so many digits after the point; a dash for anything else."""
    if not isinstance(value, (int, float)) or value != value:
        return "–"
    return f"{value:,.{digits}f}"


def _systems(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What was evaluated, named as in the table."""
    by_k = result.get("rerank") or {}
    reranked = [
        (f"{title}, best {k}" if k else title, figures.get(key))
        for k, figures in (by_k.items() if len(by_k) > 1 else [("", result)])
        for key, title in _RERANKED.items()
    ]
    for name, figures in (
        ("dual encoder", result.get("dual")),
        *reranked,
        ("chance", result.get("chance")),
    ):
        if isinstance(figures, dict):
            yield name, figures


def _retrieval_cells(figures: Mapping[str, Any], suffix: str) -> list[str]:
    keys = [f"{way}_{key}" for way in DIRECTIONS for key in RETRIEVAL_COLUMNS]
    return [cell(figures.get(f"{key}{suffix}"), 1) for key in [*keys, "r_sum"]]
