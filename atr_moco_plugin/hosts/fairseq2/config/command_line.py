"""What a recipe's command line says, read before fairseq2 reads it and without importing it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from atr_moco_plugin.io.yaml12 import NoYamlError, load_yaml


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse the arguments of a recipe that matter here; fairseq2 complains about a wrong one.

    Returns:
        ``output_dir``, ``config_file`` and ``checkpoint_dir`` (a path or None), ``config`` (the
        ``KEY=VALUE`` pairs) and ``dump_config``.
    """
    parser = _Parser(add_help=False)
    parser.add_argument("output_dir", type=Path, nargs="?")
    parser.add_argument("--config-file", type=Path, nargs="?")
    parser.add_argument("--config", action="extend", nargs="*", default=[])
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--dump-config", action="store_true")
    try:
        return parser.parse_known_args(arguments)[0]
    except ValueError:
        return parser.parse_args([])


def configurations(arguments: Namespace) -> Iterator[Mapping[Any, Any]]:
    """The configuration file and each ``KEY=VALUE`` as nested mappings, later ones override."""
    if arguments.config_file is not None:
        yield read_yaml(arguments.config_file.expanduser())
    for pair in arguments.config:
        key, equals, text = pair.partition("=")
        if not equals or key.startswith("del:"):
            continue
        *parents, last = key.strip().removeprefix("set:").split(".")
        tree: Mapping[Any, Any] = {last: _load(text)}
        for name in reversed(parents):
            tree = {name: tree}
        yield tree


def option(arguments: Namespace, key: str, default: Any) -> Any:
    """The value that a command line sets for a dotted key, unchecked."""
    value = default
    for tree in configurations(arguments):
        found: Any = tree
        for name in key.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        value = value if found is None else found
    return value


def lost_pair(pairs: Sequence[str]) -> str | None:
    """Name a pair that would be lost beside another, which sets all of what it sets a part of.

    For example ``criterion=atc`` sets all of ``criterion``, so ``criterion.config.positives=pair``
    on the same command line would say nothing, wherever it stands: fairseq2 sets whole values last.

    Args:
        pairs: ``KEY=VALUE``, keys with dots for those of a section.

    Returns:
        One sentence; None where there is no such pair.
    """
    pairs = [pair for pair in pairs if not pair.startswith("del:")]
    keys = {pair.partition("=")[0].strip().removeprefix("set:"): pair for pair in pairs}
    for key, pair in keys.items():
        for part, other in keys.items():
            if part.startswith(f"{key}."):
                instead = "set its parts alone"
                if key == "criterion":
                    instead = f"write `criterion.name={pair.partition('=')[2].strip()}`"
                return f"`{pair}` sets all of `{key}`, and `{other}` would be lost: {instead}."
    return None


def read_yaml(file: Path) -> Mapping[Any, Any]:
    """A mapping from a YAML file; empty where the file is missing or has something else in it."""
    try:
        tree = _load(file.read_bytes())
    except OSError:
        return {}
    return tree if isinstance(tree, Mapping) else {}


def _load(text: str | bytes) -> Any:
    try:
        return load_yaml(text)
    except NoYamlError:
        return None  # fairseq2 reads it again and says what is wrong
