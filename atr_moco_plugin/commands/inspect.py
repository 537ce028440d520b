"""``inspect``: what is in a data set, before anything is trained on it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from atr_moco_plugin.commands.options import positive
from atr_moco_plugin.errors import InputError, counted
from atr_moco_plugin.io.atomic import check_output
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.stdout import printable, say

if TYPE_CHECKING:
    from atr_moco_plugin.inspection.report import Inspection

SUMMARY = "look at a data set: copies, silence, shared captions, languages, leaks"
EXAMPLE = (
    "atr-moco inspect --config dataset.family=clotho dataset.config_overrides.root=~/clotho "
    "--page clotho.html"
)

MAX_TOKENS, EXAMPLES = 64, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    group = parser.add_argument_group("data set")
    group.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="dataset.family, dataset.config_overrides.OPTION and dataset.decoder, as in a recipe",
    )
    group.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="a recipe's YAML, such as config.yaml of a run, whose section dataset is read",
    )
    group.add_argument(
        "--against",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=(
            "another data set, named like that of --config, with which it must have no recording "
            "and no caption in common; may be repeated"
        ),
    )
    group = parser.add_argument_group("what to look at")
    group.add_argument(
        "--tokenizer", metavar="NAME", help="of the model: a folder, a package or a Hub name"
    )
    group.add_argument(
        "--max-tokens",
        type=positive,
        metavar="N",
        help=f"that the model reads, special ones included (default: {MAX_TOKENS})",
    )
    group.add_argument(
        "--captions-only", action="store_true", help="decode no audio, which takes the longest"
    )
    group.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="threads that decode (default: one a core, at most 8)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--page", type=Path, metavar="FILE", help="an .html to scroll and listen")
    group.add_argument(
        "--examples",
        type=positive,
        metavar="N",
        help=f"findings of each kind on the page that can be heard (default: {EXAMPLES})",
    )
    group.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="write the clips to leave out, for dataset.config_overrides.exclude",
    )
    group.add_argument("--json", action="store_true", help="print everything found as JSON")


def run(options: argparse.Namespace) -> int:
    """Look at the data set, print the tables, and write the page and the list."""
    from atr_moco_plugin.commands.dataset_options import dataset_options
    from atr_moco_plugin.inspection.opening import open_to_inspect
    from atr_moco_plugin.inspection.report import inspect_dataset
    from atr_moco_plugin.text.tokenizer import load_tokenizer

    for needed, option in (("tokenizer", "max_tokens"), ("page", "examples")):
        if getattr(options, option) is not None and getattr(options, needed) is None:
            raise InputError(f"--{option.replace('_', '-')} does nothing without --{needed}.")
    page, listed = _output(options.page, "--page"), _output(options.exclude, "--exclude")
    if page is not None:
        _check_page(page)
    own = dataset_options(options.config, options.config_file)
    if listed is not None and own.overrides.get("exclude"):
        _check_list(listed, Path(own.overrides["exclude"]))
    others = [dataset_options(pairs, option="--against") for pairs in options.against]
    for other in others:
        if other.decoder != own.decoder:
            raise InputError(
                f"`dataset.decoder` is {own.decoder}, and with --against it is {other.decoder}: "
                "the files of all data sets are decoded alike; give each the same."
            )
    tokenizer = None
    if options.tokenizer is not None:
        tokenizer = load_tokenizer(options.tokenizer, for_bert=False)
    opened = [open_to_inspect(one.family, one.overrides) for one in (own, *others)]
    clips = sum(map(len, opened[0].dataset.splits.values()))
    print(f"{opened[0].dataset.name}: looking at {counted(clips, 'clip')}.", file=sys.stderr)
    inspection = inspect_dataset(
        opened[0],
        opened[1:],
        audio=not options.captions_only,
        tokenizer=tokenizer,
        max_tokens=options.max_tokens or MAX_TOKENS,
        num_workers=options.workers or min(8, os.cpu_count() or 1),
        decoder=own.decoder,
        progress=True,
    )
    # First of all, since a file that cannot be written must not cost what hours of decoding found.
    if options.json:
        say(json.dumps(inspection.as_json(), indent=2))
    else:
        _print(inspection)
    if page is not None:
        from atr_moco_plugin.inspection.page import write_page

        write_page(inspection, page, examples=options.examples or EXAMPLES, decoder=own.decoder)
    if listed is not None:
        from atr_moco_plugin.data.opening.exclusion import write_exclusion
        from atr_moco_plugin.inspection.findings import keys_to_exclude

        write_exclusion(listed, keys_to_exclude(inspection.findings))
    for path in (page, listed):
        if path is not None:
            print(f"{path} is written.", file=sys.stderr)
    return 0


def _output(path: Path | None, option: str) -> Path | None:
    """The place of an output, and its folder made, before hours of decoding.

    Raises:
        InputError: if no file can be written there.
    """
    if path is None:
        return None
    path = expanded(path, option)
    check_output(path, option)
    return path


def _check_list(listed: Path, read: Path) -> None:
    """Refuse to replace a list that is read: what it leaves out is not found again."""
    if expanded(read, "exclude").resolve() == listed.resolve():
        raise InputError(
            f"--exclude {listed} is the list that the data set leaves out already, whose clips "
            "would not be on the new one; write another file and put the two together."
        )


def _check_page(page: Path) -> None:
    """Whether the page can be made.

    Raises:
        InputError: if it has another suffix, or a package is missing.
    """
    from atr_moco_plugin.report.packages import check_page_packages

    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--page {page}: a page ends in .html.")
    check_page_packages("--page")


def _print(inspection: Inspection) -> None:
    from atr_moco_plugin.inspection.tables import tables

    for note in inspection.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    for table in tables(inspection):
        say(f"{table.caption}\n")
        say(f"{table.text()}\n")
