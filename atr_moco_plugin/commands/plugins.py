"""``plugins``: which parts are installed, and from where."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from importlib_metadata import EntryPoint

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.plugins import GROUPS, import_part, missing, owner, published

SUMMARY = "list every part with its package, and mark those that cannot be imported"
EXAMPLE = "atr-moco plugins --strict"

HOST_GROUPS = ("fairseq2.extension",)
"""Groups of host frameworks that this package registers itself in."""

BROKEN = "BROKEN: "
"""Stands before the reason why a part cannot be imported."""


class Row(NamedTuple):
    """One part of the listing.

    Attributes:
        name: its name.
        package: package and version.
        path: module and object.
        problem: why it cannot be used, empty where it can.
    """

    name: str
    package: str
    path: str
    problem: str


def rows(group: str) -> Iterator[Row]:
    """The parts of a group, each of them imported; one that fails does not stop the others."""
    for name, points in published(group).items():
        for point in points:
            problem = _problem(group, point)
            if point is not points[0] and not problem.startswith(BROKEN):
                problem = f"not used: {owner(points[0])} publishes this name too"
            yield Row(name, owner(point), point.value, problem)


def _problem(group: str, point: EntryPoint) -> str:
    """Why an entry point cannot be used, empty where it can."""
    # What a module prints or warns of when it is imported is not part of the listing.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            absent = missing(group, import_part(point))
        except InputError as ex:
            return BROKEN + str(ex).partition(f"{point.value}: ")[2]
    return f"incomplete: no {', '.join(absent)} (docs/plugins.md)" if absent else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--strict", action="store_true", help="fail when a part is broken")
    parser.add_argument("--json", action="store_true", help="print a list of parts as JSON")


def run(options: argparse.Namespace) -> int:
    """Print every part of every group; 1 with ``--strict`` where a part cannot be imported."""
    listing = {group: list(rows(group)) for group in (*GROUPS.values(), *HOST_GROUPS)}
    if options.json:
        parts = [{"group": group, **row._asdict()} for group in listing for row in listing[group]]
        say(json.dumps(parts, indent=2))
    else:
        for group, table in listing.items():
            say(group)
            widths = [max(map(len, column)) for column in list(zip(*table, strict=True))[:3]]
            for row in table:
                cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
                say("  " + "  ".join((*cells, row.problem)).rstrip())
    broken = any(row.problem.startswith(BROKEN) for table in listing.values() for row in table)
    return int(options.strict and broken)
