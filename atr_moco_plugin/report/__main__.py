"""``python -m atr_moco_plugin.report RUN``: write the report of a run again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.report import ReportError, write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the reports of the run folders that are named; returns the exit status, 1 where one of
    them could not be written."""
    parser = argparse.ArgumentParser(
        prog="python -m atr_moco_plugin.report",
        description="Write report/index.html of finished or stopped runs from their files.",
    )
    parser.add_argument("run", nargs="+", type=Path, help="output folder of a run")
    status = 0
    for run in parser.parse_args(arguments).run:
        try:
            say(str(write_report(run)))
        except (ReportError, InputError) as ex:
            print(f"error: {ex}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
