"""Tables of a report as titles and cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atr_moco_plugin.report.run_folder import number

_WAYS = {"a2t": "audio → text", "t2a": "text → audio"}
_FIGURES = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medr": "MedR", "map10": "mAP10"}
_RERANKED = {
    "reranked": "re-ranked",
    "reranked_blip": "re-ranked as BLIP",
    "reranked_albef": "re-ranked as ALBEF",
}
_MEASURES = {
    "rankme": "RankMe",
    "participation_ratio": "participation ratio",
    "stable_rank": "stable rank",
    "count": "count",
    "alpha_req": "alpha",
}


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        groups: titles over several columns, each with their number; the first is over the row
            names and empty.
        header: column titles; the first is that of the row names.
        rows: cells, as many in each row as there are titles.
    """

    caption: str
    groups: list[tuple[str, int]]
    header: list[str]
    rows: list[list[str]]


def retrieval_table(split: str, result: Mapping[str, Any]) -> Table:
    """Retrieval figures of one split of ``retrieval.json``, all systems, chance last.

    Args:
        split: its name.
        result: its figures.
    """
    rows = []
    for label, figures in _systems(result).items():
        rows.append([label, *_cells(figures, "")])
        if "r_sum_dup" in figures:
            rows.append([f"{label} (dup)", *_cells(figures, "_dup")])
    return Table(
        caption=f"{split}: {_count(result, 'clips')} clips, {_count(result, 'captions')} captions",
        groups=[("", 1), *((way, len(_FIGURES)) for way in _WAYS.values()), ("", 1)],
        header=["", *(title for _ in _WAYS for title in _FIGURES.values()), "R-sum"],
        rows=rows,
    )


def rank_table(split: str, record: Mapping[str, Any]) -> Table:
    """Rank measures of the embeddings of one split, each beside that of random vectors.

    Args:
        split: its name.
        record: what ``RankLogger.log`` returned.
    """
    rows = []
    for name, source in (record.get("sources") or {}).items():
        for kind, word in (("raw", "raw"), ("centered", "centred")):
            measured = source.get(kind) or {}
            random = measured.get("random") or {}
            cells = [
                f"{_number(measured.get(key), digits)} / {_number(random.get(key), digits)}"
                for key, digits in ((key, 2 if key == "alpha_req" else 1) for key in _MEASURES)
            ]
            rows.append([f"{name}, {word}", _number(source.get("rows"), 0), *cells])
    return Table(
        caption=f"{split}: rank of the embeddings, measured / random vectors of the same shape",
        groups=[],
        header=["", "rows", *_MEASURES.values()],
        rows=rows,
    )


def _systems(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What was evaluated, by the name it has on the page."""
    found = {"dual encoder": result.get("dual")}
    several = result.get("rerank") or {}
    for k, figures in several.items() if len(several) > 1 else (("", result),):
        for name, label in _RERANKED.items():
            found[f"{label}, best {k}" if k else label] = figures.get(name)
    found["chance"] = result.get("chance")
    return {label: figures for label, figures in found.items() if isinstance(figures, dict)}


def _cells(figures: Mapping[str, Any], suffix: str) -> list[str]:
    keys = [f"{way}_{figure}" for way in _WAYS for figure in _FIGURES]
    return [_number(figures.get(f"{key}{suffix}"), 1) for key in [*keys, "r_sum"]]


def _count(result: Mapping[str, Any], key: str) -> str:
    value = number(result.get(key))
    return f"{value:,.0f}" if value == value else "an unknown number of"


def _number(value: object, digits: int) -> str:
    figure = number(value)
    return f"{figure:,.{digits}f}" if figure == figure else "–"
