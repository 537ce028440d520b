"""Tables of hubness and of corrections: inductive and transductive ones never in the same table.

Like the other tables they are patient: what an older or a stopped run lacks becomes a dash, or no
table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from atr_moco_plugin.errors import counted
from atr_moco_plugin.evaluation.rescoring import TITLES
from atr_moco_plugin.evaluation.result_tables import DIRECTIONS, cell, number, systems_table
from atr_moco_plugin.evaluation.tables import Table

HUBNESS_COLUMNS = {"skewness": "skew", "never": "never, %", "largest": "largest", "mean": "mean"}
"""Key of a figure of hubness to its column title."""

_DIGITS = {"skewness": 2}
_HUB = 2
"""The largest hub is named from so many times the mean on: below that it is an item like others."""


def hubness_table(result: Mapping[str, Any], split: str = "") -> Table | None:
    """How unequally often the items of a split are found, plainly and with inductive corrections.

    Args:
        result: a split of ``retrieval.json``.
        split: its name, for the caption.

    Returns:
        Of the k-occurrence the skewness, the share of items that are never found, in percent, the
        largest hub and the mean; its name in a note where it is found twice as often as the mean
        or more. None where the split has no hubness.
    """
    found = result.get("hubness")
    if not isinstance(found, dict):
        return None
    k = cell(found.get("k"), 0)
    corrections = _dict(result, "corrections")
    of_correction, inductive = _dict(corrections, "hubness"), _dict(corrections, "inductive")
    notes = []
    for way, title in DIRECTIONS.items():
        hub = _dict(found, way)
        if "largest_name" in hub and number(hub.get("largest")) >= _HUB * number(hub.get("mean")):
            notes.append(
                f"{title}: found most often, by {_queries(hub.get('largest'))}, is "
                f"“{hub['largest_name']}”"
            )
    corrected = {TITLES.get(name, name): _dict(of_correction, name) for name in inductive}
    rows = {"dual encoder": found, **corrected}
    return _hubness(rows, f"{split}: how often an item is among the best {k}", notes)


def correction_tables(
    result: Mapping[str, Any], split: str = "", *, ranges: bool = False
) -> Iterator[Table]:
    """Figures with corrections of the cosines.

    Args:
        result: a split of ``retrieval.json``.
        split: its name, for the captions.
        ranges: see :func:`~atr_moco_plugin.evaluation.result_tables.retrieval_table`.

    Returns:
        Beside the plain cosines the inductive corrections, with their parameters in the notes, and
        their gains over them; then the same of the transductive ones alone, and their hubness.
        Nothing where there are none.
    """
    corrections = _dict(result, "corrections")
    bank, chosen_on = _dict(corrections, "bank"), _dict(corrections, "chosen_on")
    inductive, transductive = (_dict(corrections, x) for x in ("inductive", "transductive"))
    plain = _dict(result, "intervals")
    intervals = {
        "dual encoder": _dict(plain, "dual"),
        **_titled(_dict(corrections, "intervals")),
    }
    level = number(plain.get("level"))
    if inductive:
        yield systems_table(
            {"dual encoder": _dict(result, "dual"), **_titled(inductive)}.items(),
            f"{split}: corrected by a bank of {cell(bank.get('clips'), 0)} clips and "
            f"{cell(bank.get('captions'), 0)} captions of {bank.get('split', 'an unknown split')}",
            list(_chosen(corrections, inductive, chosen_on)),
            intervals=intervals,
            level=level,
            ranges=ranges,
        )
        yield _gains(corrections, inductive, level, f"{split}: gains over the dual encoder")
    if transductive:
        yield systems_table(
            _titled(transductive).items(),
            f"{split}, transductive: each ranking uses all test queries, so compare it with no "
            "other table",
            list(_chosen(corrections, transductive, chosen_on)),
            intervals=intervals,
            level=level,
            ranges=ranges,
        )
        yield _gains(
            corrections, transductive, level, f"{split}, transductive: gains over the dual encoder"
        )
        hubs = _dict(corrections, "hubness")
        rows = {TITLES.get(name, name): _dict(hubs, name) for name in transductive}
        yield _hubness(rows, f"{split}, transductive: how often an item is among the best", [])


def _gains(
    corrections: Mapping[str, Any], names: Iterable[str], level: float, caption: str
) -> Table:
    """The gain of R@1 and mAP10 of each correction, with its interval."""
    found = _dict(corrections, "gains")
    columns = {"r1": "R@1", "map10": "mAP10"}
    return Table(
        header=["", *(title for _ in DIRECTIONS for title in columns.values())],
        rows=[
            [
                TITLES.get(name, name),
                *(
                    _gain(_dict(found, name).get(f"{way}_{key}"))
                    for way in DIRECTIONS
                    for key in columns
                ),
            ]
            for name in names
        ],
        caption=caption,
        groups=[("", 1), *((way, len(columns)) for way in DIRECTIONS.values())],
        notes=[
            f"In percentage points, with {100 * level:g} % intervals: Student's t, with the "
            "standard error of a bootstrap over clips that draws both alike"
        ],
    )


def _gain(value: object) -> str:
    if not isinstance(value, list) or len(value) != 3:
        return "–"
    gain, low, high = (f"{number(x):+.1f}" for x in value)
    return f"{gain} ({low} to {high})"


def hubness_report(result: Mapping[str, Any]) -> str:
    """What a terminal shows of hubness and corrections, below
    :func:`~atr_moco_plugin.evaluation.result_tables.split_report`.

    Args:
        result: a split of ``retrieval.json``.
    """
    hubs = hubness_table(result, "Hubness")
    tables = [hubs] if hubs is not None else []
    tables += correction_tables(result, "Retrieval")
    return "\n\n".join(f"{table.caption}\n{table.text()}" for table in tables)


def _titled(by_name: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {TITLES.get(name, name): _dict(by_name, name) for name in by_name}


def _chosen(
    corrections: Mapping[str, Any], names: Mapping[str, Any], chosen_on: Mapping[str, Any]
) -> Iterator[str]:
    """A note for each correction: its parameters, and what they gave where they were chosen."""
    by = str(corrections.get("chosen_by", ""))
    yield (
        f"Parameters are chosen by mAP10 on {chosen_on.get('split', 'an unknown split')} "
        f"({cell(chosen_on.get('clips'), 0)} clips):"
    )
    for name in names:
        ways = []
        for way, title in DIRECTIONS.items():
            choice = dict(_dict(_dict(_dict(corrections, "chosen"), name), way))
            figure, plain = (choice.pop(f"valid_{by}{x}", None) for x in ("", "_plain"))
            values = ", ".join(f"{key} {number(value):g}" for key, value in choice.items())
            ways.append(f"{title} {values} ({cell(plain, 1)} to {cell(figure, 1)})")
        yield f"{TITLES.get(name, name)}: {'; '.join(ways)}"


def _hubness(rows: Mapping[str, Any], caption: str, notes: list[str]) -> Table:
    return Table(
        header=["", *(title for _ in DIRECTIONS for title in HUBNESS_COLUMNS.values())],
        rows=[
            [
                name,
                *(
                    cell(_dict(found, way).get(key), _DIGITS.get(key, 1))
                    for way in DIRECTIONS
                    for key in HUBNESS_COLUMNS
                ),
            ]
            for name, found in rows.items()
        ],
        caption=caption,
        groups=[("", 1), *((way, len(HUBNESS_COLUMNS)) for way in DIRECTIONS.values())],
        notes=["Largest and mean are numbers of queries.", *notes],
    )


def _queries(number_of: object) -> str:
    return counted(round(number(number_of)), "query", "queries")


def _dict(of: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping under a key, or an empty one."""
    value = of.get(key)
    return value if isinstance(value, dict) else {}
