"""Options that several commands have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.stdout import printable

if TYPE_CHECKING:
    from atr_moco_plugin.retriever import AudioTextRetriever
    from atr_moco_plugin.search.sources import Listing

DTYPE: Literal["float32"] = "float32"
BATCH_SIZE = 16
"""Of a model where the options say nothing else, as ``DTYPE``."""

_NAMED = 3


def positive(text: str) -> int:
    """An integer of 1 or more, for ``type=`` of an argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def suffix(text: str) -> str:
    """What the names of files end with, with or without its dot, for ``type=`` of an argument."""
    if not text.removeprefix(".").isalnum():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no suffix: write --suffix m4a, once for each"
        )
    return text


def alpha(text: str) -> float:
    """How much of an offset is taken off, for ``type=`` of an argument."""
    from atr_moco_plugin.search.bank import check_alpha

    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number (give a sentence before it, or write --correct=0.75)"
        ) from None
    try:
        return check_alpha(number)
    except InputError as ex:
        raise argparse.ArgumentTypeError(str(ex)) from None


def add_correct(parser: argparse._ActionsContainer) -> None:
    """``--correct``, see :func:`corrected`."""
    parser.add_argument(
        "--correct",
        metavar="ALPHA",
        nargs="?",
        type=alpha,
        const=True,
        default=0.0,
        help=(
            "take that much of what a sound has in common with all sentences of the index's bank "
            "off its score (default: nothing; without a number: 0.75)"
        ),
    )


def corrected(options: argparse.Namespace) -> float:
    """The alpha of ``--correct``; 0 where it is not given."""
    from atr_moco_plugin.search.bank import ALPHA

    return ALPHA if options.correct is True else float(options.correct)


def add_model(parser: argparse.ArgumentParser, *, required: bool = True, more: str = "") -> None:
    """``--model`` and how it runs.

    Args:
        parser: of a command.
        required: whether the command has no other way to know the model.
        more: said of ``--model`` beside what it is.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="BUNDLE",
        required=required,
        help="a folder that `export` made, a name on the Hugging Face Hub, or a ClapModel" + more,
    )
    group.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU where there is one)")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help=f"of the model's computations (default: {DTYPE})",
    )
    group.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help=f"windows at once (default: {BATCH_SIZE})",
    )


def load_retriever(
    options: argparse.Namespace, name: str = "", index: str = ""
) -> AudioTextRetriever:
    """The retriever of the options; ``name``, the model of ``index``, is taken where ``--model`` is
    not given."""
    from atr_moco_plugin.retriever import AudioTextRetriever

    try:
        return AudioTextRetriever.from_pretrained(
            options.model or name,
            device=options.device,
            dtype=options.dtype or DTYPE,
            batch_size=options.batch_size or BATCH_SIZE,
        )
    except InputError as ex:
        if options.model or not index:
            raise
        raise InputError(
            f"The model that {index} was made with cannot be loaded, --model says where it is "
            f"now: {ex}"
        ) from None


def add_sounds(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The sounds that a command takes, and how a list of them is read.

    Args:
        parser: of a command.
        optional: whether the command does without sounds.
    """
    parser.add_argument(
        "source",
        metavar="FOLDER",
        nargs="?" if optional else None,
        help=(
            "sounds: a folder, with what is below it and in its .tar files; one sound; one .tar; "
            "or a table (.csv, .tsv, .json, .jsonl) with a column of files"
        ),
    )
    group = parser.add_argument_group("which sounds")
    group.add_argument(
        "--list", action="store_true", help="FOLDER is a text file with the path of a sound a line"
    )
    group.add_argument(
        "--relative-to",
        metavar="DIR",
        help="of paths in a list or a table (default: the folder that it is in)",
    )
    group.add_argument(
        "--suffix",
        action="append",
        type=suffix,
        default=[],
        metavar="SUFFIX",
        help="of sounds too, beside the usual ones; may be repeated",
    )


def list_sounds(options: argparse.Namespace, *, may_be_none: bool = False) -> Listing:
    """The sounds of the options.

    Raises:
        InputError: if there is none and ``may_be_none`` is not given.
    """
    from atr_moco_plugin.search.plan import no_sounds
    from atr_moco_plugin.search.sources import list_sounds

    listing = list_sounds(
        options.source,
        is_list=options.list,
        relative_to=options.relative_to,
        suffixes=options.suffix,
    )
    if not may_be_none and not listing.has_sounds():
        raise InputError(no_sounds(listing))
    return listing


def refuse_table(file: str | Path, instead: str) -> None:
    """Refuse a table where a text file is read line by line, header and other columns included.

    Args:
        file: that was given.
        instead: what to give.

    Raises:
        InputError: if it has the suffix of a table.
    """
    if Path(file).suffix.lower() in TABLE_SUFFIXES:
        raise InputError(f"{file} is a table: give {instead}.")


def none_can_be_read(listing: Listing, broken: Sequence[tuple[str, str]]) -> str:
    """The message where all sounds are broken, with the first of them."""
    name, reason = broken[0]
    return f"{listing.name}: no sound can be read, such as {name}: {reason}."


def report_broken(broken: Sequence[tuple[str, str]], what: str = "cannot be read") -> None:
    """Name the first sounds that something is wrong with on standard error."""
    if not broken:
        return
    # All where one would be left: its name takes no more room than its number.
    shown = broken if len(broken) <= _NAMED + 1 else broken[:_NAMED]
    lines = [f"{len(broken):,} {what}:"]
    lines += [printable(f"{name}: {reason}" if reason else name) for name, reason in shown]
    if len(broken) > len(shown):
        lines.append(f"... and {len(broken) - len(shown):,} more (--json names all)")
    print("\n  ".join(lines), file=sys.stderr)
