"""The command line of a comparison: ``python -m atr_moco_plugin.recipes.compare RUN RUN ...``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from atr_moco_plugin.comparison.assemble import Comparison, Options, compare
from atr_moco_plugin.comparison.inference import Settings
from atr_moco_plugin.comparison.sides import SYSTEM, parse_sides
from atr_moco_plugin.comparison.tables import pair_table, pair_verdict, query_sentence
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.arguments import OnceParser
from atr_moco_plugin.io.atomic import check_output
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.report.packages import check_page_packages

PAGE = Path("comparison.html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare runs, print tables and write a page.

    Args:
        arguments: of the command line; None takes those of the process.

    Returns:
        0, or 2 for a user's mistake.
    """
    options = _parser().parse_args(arguments)
    try:
        if not options.no_page:
            check_page_packages(then=", or give --no-page")
            check_output(options.page, "--page")
        sides, notes = parse_sides(options.side, group=not options.no_group, system=options.system)
        found = compare(
            sides,
            Options(
                options.system,
                options.split,
                options.direction,
                options.qrels,
                tuple(x.strip() for x in options.figures.split(",") if x.strip()),
                options.all_pairs,
                Settings(options.replicates, options.flips, options.seed),
            ),
            notes,
        )
        if options.json:
            say(json.dumps(found.to_dict(), indent=2, allow_nan=False))
        else:
            say(report(found))
        if not options.no_page:
            _write_page(found, options)
    except InputError as ex:
        print(f"ERROR: {' '.join(str(ex).split())}", file=sys.stderr)
        return 2
    return 0


def report(found: Comparison) -> str:
    """What a terminal shows: a table for each pair, in words what differs, and notes."""
    parts = []
    for pair in found.pairs:
        table = pair_table(found, pair)
        words = (pair_verdict(found, pair), query_sentence(found, pair))
        parts.append("\n".join((table.caption, "", table.text(), "", *words)))
    parts.append("\n".join(found.notes))
    return "\n\n".join(parts)


def _write_page(found: Comparison, options: argparse.Namespace) -> None:
    from atr_moco_plugin.comparison.page import write_page

    page = write_page(found, options.page, examples=options.examples, sound=not options.no_sound)
    if not options.json:
        say(f"\nPage: {page}")


def _number(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is not {least} or more")
    return number


def _draws(text: str) -> int:
    return _number(100, text)


def _natural(text: str) -> int:
    return _number(0, text)


def _parser() -> argparse.ArgumentParser:
    parser = OnceParser(
        prog="python -m atr_moco_plugin.recipes.compare",
        description="Are two models really different? A paired bootstrap and a randomisation test "
        "on the same queries, corrected for the number of tests, and a page with the queries that "
        "changed.",
    )
    parser.add_argument(
        "side",
        nargs="+",
        metavar="RUN",
        help="output folder of a run or of an evaluation, or a .run file of TREC; the first is "
        "what the others are compared with. RUN:SYSTEM takes other results of it, such as "
        "RUN:reranked_k64. NAME=RUN,RUN,RUN is a side of several seeds; runs that differ in their "
        "seed alone are one side without being asked",
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument("--system", default=SYSTEM, help=f"results of every run (default: {SYSTEM})")
    what.add_argument("--split", help="of the runs (default: test, or the only one)")
    what.add_argument(
        "--figures",
        default="",
        metavar="NAME,NAME",
        help="chosen before you look, such as r_sum,t2a_r1: fewer tests, a smaller correction "
        "(default: all)",
    )
    what.add_argument(
        "--all-pairs", action="store_true", help="every two sides, not each with the first"
    )
    what.add_argument("--no-group", action="store_true", help="every run without a name is a side")
    trec = parser.add_argument_group("files of TREC")
    trec.add_argument("--qrels", type=Path, metavar="FILE", help="judgements (default: beside)")
    trec.add_argument(
        "--direction",
        choices=("a2t", "t2a"),
        help="what the queries are: clips or sentences (default: as the file's name starts)",
    )
    draws = parser.add_argument_group("draws")
    draws.add_argument("--replicates", type=_draws, default=Settings.replicates, metavar="N",
                       help=f"of the bootstrap (default: {Settings.replicates:,})")  # fmt: skip
    draws.add_argument("--flips", type=_draws, default=Settings.flips, metavar="N",
                       help=f"of the randomisation test (default: {Settings.flips:,})")  # fmt: skip
    draws.add_argument("--seed", type=_natural, default=Settings.seed, metavar="N",
                       help="of both (default: 0)")  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="print JSON in place of tables")
    out.add_argument("--page", type=Path, default=PAGE, metavar="FILE",
                     help=f"where the page goes (default: {PAGE})")  # fmt: skip
    out.add_argument("--no-page", action="store_true", help="write none")
    out.add_argument("--examples", type=_natural, default=6, metavar="N",
                     help="queries to show that got better, and as many that got worse, of each "
                     "direction (default: 6)")  # fmt: skip
    out.add_argument("--no-sound", action="store_true", help="do not open the data set")
    return parser
