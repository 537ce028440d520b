"""What a command line says about its output folder, asked before fairseq2 writes anything there."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairseq2.utils.argparse import ConfigAction
from fairseq2.utils.config import StandardConfigMerger
from ruamel.yaml import YAML

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.lock import claim

_PATTERN = "[]*?"


def prepare_output(check: Callable[[Path, Namespace], None]) -> Path | None:
    """Check the output folder of this process's command line, and claim it.

    Args:
        check: raises :class:`~atr_moco_plugin.errors.InputError` for a folder that cannot be used;
            called with it and the arguments.

    Returns:
        The folder, where it is known by now and will be written to.

    Raises:
        SystemExit: with status 2 and one line on standard error, for such a folder and for one
            that another process uses.
    """
    arguments = _parse(sys.argv[1:])
    out = arguments.output_dir
    if out is None or arguments.dump_config:
        return None
    out = out.expanduser()
    try:
        check(out, arguments)
        # With sweep folders a run's own is known when its configuration is complete.
        if not option(arguments, "common.no_sweep_dir", True):
            return None
        claim(out)
    except InputError as ex:
        print(f"ERROR: {' '.join(str(ex).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    return out


def option(arguments: Namespace, key: str, default: Any) -> Any:
    """The value of a key in the configuration file and in ``--config``, unchecked."""
    merger = StandardConfigMerger()
    tree: Any = {}
    try:
        for part in (*_file(arguments.config_file), *(arguments.overrides or ())):
            tree = merger.merge(tree, part)
    except (ValueError, TypeError):
        return default  # fairseq2 says what is wrong
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return default if tree is None else tree


def is_evaluation(folder: Path) -> bool:
    """Whether a folder holds the configuration of an evaluation."""
    return any(
        isinstance(tree, Mapping) and "run" in tree and "split" in tree
        for tree in _file(folder / "config.yaml")
    )


def check_name(folder: Path) -> None:
    """Refuse a folder for checkpoints whose name fairseq2 takes for a pattern: it would not find
    them there, and a run would begin anew over its own.

    Raises:
        InputError: naming the character.
    """
    folder = folder.resolve()
    bad = [x for x in _PATTERN if x in str(folder)]
    if bad:
        raise InputError(
            f"{folder} has `{bad[0]}` in its name, which fairseq2 takes for a pattern and then "
            "finds no checkpoints there: give an output folder without `[`, `]`, `*` and `?`."
        )


def _parse(values: list[str]) -> Namespace:
    # fairseq2's own, as far as it matters here; what is wrong with the rest is for it to say.
    parser = ArgumentParser(add_help=False)
    parser.add_argument("output_dir", type=Path, nargs="?")
    parser.add_argument("--config-file", type=Path, nargs="?")
    parser.add_argument("--config", dest="overrides", action=ConfigAction)
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--dump-config", action="store_true")
    return parser.parse_known_args(values)[0]


def _file(path: Path | None) -> list[Any]:
    if path is None:
        return []
    try:
        return [YAML(typ="safe", pure=True).load(path.expanduser())]
    # fairseq2 reads it again and says what is wrong with it.
    except Exception:
        return []
