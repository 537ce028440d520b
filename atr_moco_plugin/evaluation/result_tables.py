"""The tables of an evaluation: retrieval figures and the rank of the embeddings.

Results are read with patience, since the page of a run shows what a stopped run left: a figure that
is not there becomes a dash.
"""

from __future__ import annotations

import math
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


def retrieval_table(result: Mapping[str, Any], split: str = "", *, ranges: bool = False) -> Table:
    """Retrieval figures of one split, a row for each way to rank, both directions side by side.

    Args:
        result: of :func:`~atr_moco_plugin.evaluation.retrieval.system_figures`, or a split of
            ``retrieval.json``.
        split: its name, for the caption.
        ranges: give an interval in one row of cells such as ``41.2–46.9``, where there is room for
            more than 100 columns, and not in a row for each end.

    Returns:
        R@k and mAP@10 in percent, the median rank, and the sum of the six R@k. Duplicate-aware
        figures have a row of their own, marked ``(dup)``. Below the figures are their intervals,
        where the result has some. Chance is the last row. As text it is at most 100 columns wide
        where row names have up to 18 characters.
    """
    size = ", ".join(
        f"{cell(result[key], 0) if key in result else 'an unknown number of'} {key}"
        for key in ("clips", "captions")
    )
    systems = list(_systems(result))
    return systems_table(
        [(name, figures) for name, figures, _ in systems],
        f"{split}: {size}",
        interval_notes(result),
        intervals={name: ends for name, _, ends in systems},
        level=number(_mapping(result.get("intervals")).get("level")),
        ranges=ranges,
    )


def systems_table(
    systems: Iterable[tuple[str, Mapping[str, Any]]],
    caption: str,
    notes: Sequence[str] = (),
    *,
    intervals: Mapping[str, Mapping[str, Any]] | None = None,
    level: float = 0.95,
    ranges: bool = False,
) -> Table:
    """The columns of :func:`retrieval_table` for any ways to rank.

    Args:
        systems: row names and figures.
        caption: what the table shows.
        notes: lines below it.
        intervals: by row name the lowest and highest value of each figure.
        level: of the intervals.
        ranges: see :func:`retrieval_table`.
    """
    rows = []
    for name, figures in systems:
        ends = (intervals or {}).get(name, {})
        for mark, suffix in (("", ""), (" (dup)", "_dup")):
            if suffix and f"r_sum{suffix}" not in figures:
                continue
            rows.append([f"{name}{mark}", *_retrieval_cells(figures, suffix)])
            if any(key in ends for key in _figure_keys(suffix)):
                rows += _interval_rows(ends, suffix, f"{100 * level:g} %", ranges=ranges)
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
        measured = [  # no alignment where rows are no pairs
            f"{key.replace('_', ' ')} {cell(pair[key], 3)}"
            for key in ("alignment", "modality_gap")
            if pair.get(key) is not None
        ]
        notes += [f"{name}: {', '.join(measured)}"] if measured else []
    return Table(
        header=["measured / random", "rows", *RANK_COLUMNS.values()],
        rows=rows,
        caption=f"{split}: rank of the embeddings beside random vectors of the same shape",
        notes=notes,
    )


def interval_notes(result: Mapping[str, Any]) -> list[str]:
    """A line on what the intervals of a split are; none where it has no intervals.

    Args:
        result: a split of ``retrieval.json``.
    """
    intervals = _mapping(result.get("intervals"))
    clusters = intervals.get("clusters")
    if isinstance(clusters, Mapping):
        clips, texts = (cell(clusters.get(way), 0) for way in DIRECTIONS)
        drawn = f"{clips} clips and {texts} sets of texts with the same clips"
    elif clusters is not None:
        drawn = f"{cell(clusters, 0)} clips with their captions"
    else:
        return []
    return [
        f"{100 * number(intervals.get('level')):g} % intervals: Wilson's with Student's t, errors "
        f"of a bootstrap over {drawn} (MedR: quantiles)"
    ]


def interval_cell(ends: object, digits: int) -> str:
    """An interval such as ``41.2–46.9``; a dash for anything else."""
    low, high = _ends(ends, digits)
    return low if low == "–" else f"{low}–{high}"


def split_report(result: Mapping[str, Any]) -> str:
    """What a terminal shows of one split: its size, a table for each k, and the rank.

    Args:
        result: of :func:`~atr_moco_plugin.evaluation.retrieval.system_figures`, with
            ``test_set``, the name of what was evaluated, and ``rank``, a record of
            :class:`~atr_moco_plugin.rank.logger.RankLogger`.
    """
    size = f"{result['clips']:,} clips, {result['captions']:,} captions"
    parts = [f"Retrieval on {result['test_set']}: {size}"]
    by_k = result.get("rerank", {})
    if not by_k:
        parts.append(retrieval_table(result).text())
    for k, figures in by_k.items():
        intervals = _mapping(result.get("intervals"))
        of_k = {**intervals, **_mapping(_mapping(intervals.get("rerank")).get(k)), "rerank": {}}
        table = retrieval_table({**result, **figures, "rerank": {}, "intervals": of_k})
        parts.append(f"The best {k} candidates re-ranked\n{table.text()}")
    parts.append(f"Rank of the embeddings\n{rank_table(result['rank']).text()}")
    return "\n\n".join(parts)


def cell(value: object, digits: int) -> str:
    """A number with so many digits after the point; a dash for anything else."""
    if not isinstance(value, (int, float)) or value != value:
        return "–"
    return f"{value:,.{digits}f}"


def number(value: object) -> float:
    """A number, or NaN for anything else."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def _systems(
    result: Mapping[str, Any],
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """What was evaluated, named as in the table, its figures and their intervals."""
    by_k = _mapping(result.get("rerank"))
    intervals = _mapping(result.get("intervals"))
    intervals_by_k = _mapping(intervals.get("rerank"))
    reranked = [
        (f"{title}, best {k}" if k else title, _mapping(figures).get(key), _mapping(of_k).get(key))
        for k, figures, of_k in (
            [(k, figures, intervals_by_k.get(k)) for k, figures in by_k.items()]
            if len(by_k) > 1
            else [("", result, intervals)]
        )
        for key, title in _RERANKED.items()
    ]
    for name, figures, of_system in (
        ("dual encoder", result.get("dual"), intervals.get("dual")),
        *reranked,
        ("chance", result.get("chance"), None),
    ):
        if isinstance(figures, dict):
            yield name, figures, _mapping(of_system)


def _figure_keys(suffix: str) -> list[str]:
    keys = [f"{way}_{key}" for way in DIRECTIONS for key in RETRIEVAL_COLUMNS]
    return [f"{key}{suffix}" for key in [*keys, "r_sum"]]


def _retrieval_cells(figures: Mapping[str, Any], suffix: str) -> list[str]:
    return [cell(figures.get(key), 1) for key in _figure_keys(suffix)]


def _interval_rows(
    intervals: Mapping[str, Any], suffix: str, level: str, *, ranges: bool
) -> list[list[str]]:
    ends = [intervals.get(key) for key in _figure_keys(suffix)]
    if ranges:
        return [[f"  {level}", *(interval_cell(x, 1) for x in ends)]]
    low, high = zip(*(_ends(x, 1) for x in ends), strict=True)
    return [[f"  {level} from", *low], [f"  {level} to", *high]]


def _ends(value: object, digits: int) -> tuple[str, str]:
    """Both ends of an interval, or two dashes."""
    low, high = value if isinstance(value, (list, tuple)) and len(value) == 2 else (None, None)
    shown = (cell(low, digits), cell(high, digits))
    return ("–", "–") if "–" in shown else shown


def _mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
