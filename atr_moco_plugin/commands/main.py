"""The command line as a whole: which commands there are, and how they end."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from atr_moco_plugin import __version__
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.arguments import OnceParser
from atr_moco_plugin.io.stdout import say, warnings_in_short

COMMANDS = (
    "index",
    "search",
    "serve",
    "classify",
    "embed",
    "analyse",
    "inspect",
    "export",
    "plugins",
)
"""Names of the commands and of their modules in this folder."""

STATUS_INPUT, STATUS_INTERRUPTED = 2, 130


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser with a subparser for each command."""
    parser = OnceParser(
        prog=prog,
        description="Audio-text retrieval: use what was trained.",
        epilog=(
            "Training: python -m atr_moco_plugin.recipes.finetune OUT (and toy, scenes, esc50, "
            "audiocaps, clotho). "
            "Status: 0 done, 1 as the command says, 2 wrong input, 130 interrupted."
        ),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"{__package__}.{name}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]}.",
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    prog = "python -m atr_moco_plugin" if sys.argv[0].endswith("__main__.py") else "atr-moco"
    parser = build_parser(prog)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        words = options.command == "search" and not unknown[0].startswith("-")
        hint = " (put the sentence in quotes)" if words else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if options.command is None:
        say(parser.format_help().rstrip())
        return 0
    try:
        with warnings_in_short():
            status: int = options.run(options)
    except InputError as ex:
        print(f"ERROR: {' '.join(str(ex).split())}", file=sys.stderr)
        return STATUS_INPUT
    except OSError as ex:
        if ex.filename is None:
            raise
        allow = ": allow this user to read and write it" * isinstance(ex, PermissionError)
        print(f"ERROR: {ex.filename}: {ex.strerror}{allow}.", file=sys.stderr)
        return STATUS_INPUT
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return STATUS_INTERRUPTED
    return status
