"""Plain-text and Markdown tables of retrieval and rank figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_RETRIEVAL_COLUMNS = (
    ("R@1", "r1"),
    ("R@5", "r5"),
    ("R@10", "r10"),
    ("MedR", "medr"),
    ("mAP10", "map10"),
)
_RANK_COLUMNS = (
    ("RankMe", "rankme"),
    ("part. ratio", "participation_ratio"),
    ("stable rank", "stable_rank"),
    ("count", "count"),
    ("alpha", "alpha_req"),
)


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False
) -> str:
    """Lay out a table: the first column flush left, the others flush right.

    Args:
        header: column titles.
        rows: cells, as many in each row as there are titles.
        markdown: whether to write Markdown instead of text for a terminal.

    Raises:
        ValueError: when a row has another number of cells than the header.

    Example:
        >>> print(format_table(["name", "R@1"], [["ours", "9.5"]]))
        name  R@1
        ----  ---
        ours  9.5
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"Row {list(row)} has {len(row)} cells, the header {len(header)}.")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = [
        "-" * (width - 1) + ":" if markdown and i else "-" * width for i, width in enumerate(widths)
    ]
    lines = []
    for row in (header, rule, *rows):
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip())
    return "\n".join(lines)


def retrieval_table(
    rows: Mapping[str, Mapping[str, float]],
    *,
    chance: Mapping[str, float] | None = None,
    markdown: bool = False,
) -> str:
    """Retrieval figures of several systems, both directions side by side.

    Args:
        rows: name -> result of ``retrieval_metrics`` or ``relevance_metrics``. Where it has
            duplicate-aware figures, they get a line of their own, marked ``(dup)``.
        chance: result of ``chance_metrics``; the last line.
        markdown: whether to write Markdown instead of text for a terminal.

    Returns:
        The table: R@k and mAP@10 in percent, median rank, and the sum of the six R@k. With names
        of up to 18 characters it is at most 100 columns wide.
    """
    lines: dict[str, Mapping[str, float]] = {}
    for name, metrics in rows.items():
        lines[name] = metrics
        suffix = "_dup"
        aware = {k.removesuffix(suffix): v for k, v in metrics.items() if k.endswith(suffix)}
        if aware:
            lines[f"{name} (dup)"] = aware
    if chance is not None:
        lines["chance"] = chance
    # A terminal has no room for the direction in each title, Markdown no line for it above them.
    titles = [
        (f"{title} {way}" if markdown else title, f"{way}_{key}")
        for way in ("a2t", "t2a")
        for title, key in _RETRIEVAL_COLUMNS
    ]
    titles.append(("R-sum", "r_sum"))
    cells = [
        [name, *(_number(metrics.get(key), 1) for _, key in titles)]
        for name, metrics in lines.items()
    ]
    table = format_table(["", *(title for title, _ in titles)], cells, markdown=markdown)
    if markdown:
        return table
    return _directions_line(table) + "\n" + table


def split_report(result: Mapping[str, Any]) -> str:
    """All there is to read of one split: what it is, a table for each k, and the rank.

    Args:
        result: of :func:`~atr_moco_plugin.evaluation.retrieval.retrieval_figures`, with
            ``test_set``, the name of what was evaluated, and ``rank``, a record of
            :class:`~atr_moco_plugin.rank.logger.RankLogger`.
    """
    size = f"{result['clips']:,} clips, {result['captions']:,} captions"
    parts = [f"Retrieval on {result['test_set']}: {size}"]
    rerank = result.get("rerank", {})
    if not rerank:
        parts.append(retrieval_table({"dual encoder": result["dual"]}, chance=result["chance"]))
    for k, figures in rerank.items():
        rows = {
            "dual encoder": result["dual"],
            "re-ranked": figures["reranked"],
            "re-ranked as BLIP": figures["reranked_blip"],
            "re-ranked as ALBEF": figures["reranked_albef"],
        }
        table = retrieval_table(rows, chance=result["chance"])
        parts.append(f"The best {k} candidates re-ranked\n{table}")
    parts.append(f"Rank of the embeddings\n{rank_table(result['rank'])}")
    return "\n\n".join(parts)


def rank_table(record: Mapping[str, Any], *, markdown: bool = False) -> str:
    """Rank measures of one record of :class:`~atr_moco_plugin.rank.logger.RankLogger`.

    Args:
        record: what ``RankLogger.log`` returned, or a parsed line of ``rank.jsonl``.
        markdown: whether to write Markdown instead of text for a terminal.

    Returns:
        One line for each source and for its raw and centred matrix, each figure beside the value
        for random unit vectors of the same shape, then the measures of the pairs.
    """
    cells = []
    for name, source in record["sources"].items():
        for kind in ("raw", "centered"):
            measured, random = source[kind], source[kind]["random"]
            figures = (
                f"{_number(measured[key], digits)} / {_number(random[key], digits)}"
                for key, digits in ((k, 2 if k == "alpha_req" else 1) for _, k in _RANK_COLUMNS)
            )
            cells.append([f"{name} {kind}", str(source["rows"]), *figures])
    header = ["measured / random", "rows", *(title for title, _ in _RANK_COLUMNS)]
    notes = [
        f"{name}: uniformity {_number(source['uniformity'], 3)}{_filled(source)}"
        for name, source in record["sources"].items()
    ]
    notes += [
        f"{pair}: alignment {_number(measures['alignment'], 3)}, "
        f"modality gap {_number(measures['modality_gap'], 3)}"
        for pair, measures in record["pairs"].items()
    ]
    table = format_table(header, cells, markdown=markdown)
    return "\n".join([table, "", *(f"- {note}" if markdown else note for note in notes)])


def _directions_line(table: str) -> str:
    """The line above a plain retrieval table, each direction over its first column."""
    header = table.splitlines()[0]
    start = header.index("R@1 ")
    other = header.index("R@1 ", start + 1)
    return f"{'':{start}}{'audio -> text':{other - start}}text -> audio"


def _filled(source: Mapping[str, Any]) -> str:
    if source["fill"] is None:
        return ""
    return f", queue filled {100 * source['fill']:.1f} % of {source['queue_size']}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
