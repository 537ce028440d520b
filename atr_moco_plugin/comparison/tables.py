"""A comparison as tables and sentences."""

from __future__ import annotations

from atr_moco_plugin.comparison.assemble import Comparison, Pair
from atr_moco_plugin.errors import counted
from atr_moco_plugin.evaluation.metrics import higher_is_better
from atr_moco_plugin.evaluation.result_tables import RETRIEVAL_COLUMNS
from atr_moco_plugin.evaluation.tables import Table

WAYS = {"a2t": "audio to text", "t2a": "text to audio"}
"""Prefix of a figure to the direction in words."""

_LEVEL = 0.05
_LONGEST = 18


def figure_title(name: str) -> str:
    """A figure in words.

    Example:
        >>> figure_title("t2a_r1")
        'text to audio R@1'
    """
    way, _, kind = name.partition("_")
    return f"{WAYS[way]} {RETRIEVAL_COLUMNS[kind]}" if way in WAYS else "R-sum"


def pair_table(comparison: Comparison, pair: Pair) -> Table:
    """The figures of two sides, a row for each: what they are, their difference with its interval
    and p-values. At most 100 columns wide."""
    found = pair.found
    rows = []
    for n in _in_order(comparison):
        digits = 2 if comparison.names[n].endswith("medr") else 1
        rows.append(
            [
                figure_title(comparison.names[n]),
                *(f"{x:.{digits}f}" for x in (found.base[n], found.ours[n])),
                *(_signed(x, digits) for x in (found.difference[n], found.low[n], found.high[n])),
                *(_probability(p) for p in (float(found.p[n]), pair.corrected[n])),
            ]
        )
    base, ours = (comparison.sides[n].name for n in (pair.base, pair.ours))
    return Table(
        header=["", *_columns(base, ours), "difference", "95 % from", "to", "p", "p (Holm)"],
        rows=rows,
        caption=f"{ours} beside {base} on {comparison.size}",
    )


def pair_verdict(comparison: Comparison, pair: Pair) -> str:
    """What is different, in a sentence.

    A figure counts where its corrected p-value is at most 5 %.
    """
    base, ours = (comparison.sides[n].name for n in (pair.base, pair.ours))
    better: dict[bool, list[str]] = {True: [], False: []}
    for n in _in_order(comparison):
        if pair.corrected[n] <= _LEVEL:
            up = bool(pair.found.difference[n] > 0)
            better[up == higher_is_better(comparison.names[n])].append(
                figure_title(comparison.names[n])
            )
    corrected = f"5 % level, corrected for {counted(comparison.tests, 'test')}"
    parts = [
        f"{word} in {', '.join(names)}"
        for word, names in (("better", better[True]), ("worse", better[False]))
        if names
    ]
    if parts:
        return f"{ours} beside {base}: {'; '.join(parts)} ({corrected})."
    return f"{ours} beside {base}: no figure is different ({corrected})."


def query_sentence(comparison: Comparison, pair: Pair) -> str:
    """How many queries are answered better and worse."""
    base, ours = (comparison.sides[n].name for n in (pair.base, pair.ours))
    parts = [
        f"{WAYS[way]} {better:,} better, {equal:,} alike, {worse:,} worse"
        for way, (better, equal, worse) in pair.better.items()
    ]
    return f"Queries of {ours} beside {base}: {'; '.join(parts)}."


def _in_order(comparison: Comparison) -> list[int]:
    """The figures in the order of the other tables."""
    kinds = list(RETRIEVAL_COLUMNS)

    def place(n: int) -> tuple[int, int]:
        way, _, kind = comparison.names[n].partition("_")
        return (list(WAYS).index(way), kinds.index(kind)) if way in WAYS else (len(WAYS), 0)

    return sorted(range(len(comparison.names)), key=place)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text.replace("+", "").replace("-", "") if float(text) == 0 else text


def _probability(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _columns(base: str, ours: str) -> tuple[str, str]:
    """Short names of two sides; of paths with one end the parts before it, which differ."""
    paths = base.split("/"), ours.split("/")
    if _short(base) == _short(ours) and base != ours:
        while paths[0][-1] == paths[1][-1] and min(map(len, paths)) > 1:
            for parts in paths:
                parts.pop()
    return _short("/".join(paths[0])), _short("/".join(paths[1]))


def _short(name: str) -> str:
    """A side's name in a column: its end, which tells runs apart."""
    return name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"
