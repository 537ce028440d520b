"""What a command line sets: a YAML file, and ``KEY=VALUE`` in front of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.finetuning.choices import joined
from atr_moco_plugin.finetuning.keys import written_out
from atr_moco_plugin.finetuning.parts import merged
from atr_moco_plugin.io.yaml12 import NoYamlError, load_yaml


def read_stated(file: Path | None, pairs: Sequence[str]) -> dict[str, Any]:
    """Nested keys as they were set, pairs in front of the file.

    For example ``["init=random", "dataset.batch_size=8"]`` is
    ``{"init": "random", "dataset": {"batch_size": 8}}``. Values are YAML.

    Args:
        file: a YAML file with a mapping, whose keys may have dots too, or None.
        pairs: ``KEY=VALUE``, a key with dots for a section's.

    Raises:
        InputError: for a file or a value that cannot be read, or a key that the file or the pairs
            set to two values.
    """
    stated: dict[str, Any] = {} if file is None else written_out(_read(file.expanduser()))
    of_pairs: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"`--config {pair}` is no KEY=VALUE, such as dataset.batch_size=16.")
        own = {key.strip().removeprefix("set:"): _parsed(text, pair)}
        of_pairs = joined(of_pairs, written_out(own))
    return merged(stated, of_pairs)


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as ex:
        raise MissingFileError(f"--config-file {file} cannot be read: {ex.strerror}.") from ex
    content = _parsed(text, f"--config-file {file}")
    if not isinstance(content, Mapping):
        raise InputError(f"--config-file {file} holds no mapping of sections, such as `dataset:`.")
    return dict(content)


def _parsed(text: str, where: str) -> Any:
    try:
        return load_yaml(text)
    except NoYamlError as ex:
        raise InputError(f"`{where}` is no YAML: {ex}") from ex
