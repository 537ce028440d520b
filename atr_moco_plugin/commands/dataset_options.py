"""A data set on the command line, named as a recipe names it, without fairseq2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.sets.registry import one_decoder
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.io.yaml12 import NoYamlError, load_yaml

_READ = ("dataset.family", "dataset.config_overrides", "dataset.decoder")


@dataclass(frozen=True)
class DatasetOptions:
    """What a configuration says of the data set.

    Attributes:
        family: its name, such as ``clotho``.
        overrides: its options.
        decoder: what reads its files.
    """

    family: str
    overrides: Mapping[str, Any]
    decoder: Decoder


def dataset_options(
    pairs: Iterable[str], file: Path | None = None, option: str = "--config"
) -> DatasetOptions:
    """The data set of ``dataset.family=clotho dataset.config_overrides.root=PATH``.

    Args:
        pairs: ``NAME=VALUE`` with a value in YAML, of ``dataset.family``,
            ``dataset.config_overrides`` and ``dataset.decoder``.
        file: a recipe's YAML, such as ``config.yaml`` of a run; ``pairs`` go before it, and its
            other sections are not read.
        option: of ``pairs``, for messages.

    Raises:
        MissingFileError: if the file is not there.
        InputError: for another name, a value or a file that is no YAML, or without a family.
    """
    section = {} if file is None else _section(expanded(file, "--config-file"))
    overrides = dict(_mapping(section.get("config_overrides"), f"{file}: config_overrides"))
    values = {"family": section.get("family"), "decoder": section.get("decoder")}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        name = name.strip()
        value = _value(text, name, option)
        if not separator or not (name in _READ or name.startswith("dataset.config_overrides.")):
            raise InputError(
                f"{option} takes dataset.family=NAME, dataset.config_overrides.OPTION=VALUE and "
                f"dataset.decoder=NAME, not {pair!r}."
            )
        if name == "dataset.config_overrides":
            overrides |= _mapping(value, name)
        elif name.startswith("dataset.config_overrides."):
            overrides[name.removeprefix("dataset.config_overrides.")] = value
        else:
            values[name.removeprefix("dataset.")] = value
    if not values["family"]:
        raise InputError(
            f"There is no data set: give {option} dataset.family=NAME "
            "dataset.config_overrides.root=PATH; for files of your own NAME is manifest and PATH "
            "a table."
        )
    decoder = one_decoder(overrides, values["decoder"])
    return DatasetOptions(str(values["family"]), overrides, decoder)


def _section(file: Path) -> Mapping[str, Any]:
    try:
        tree = load_yaml(file.read_bytes())
    except FileNotFoundError as ex:
        raise MissingFileError(f"{file}: there is no such configuration.") from ex
    except (OSError, NoYamlError) as ex:
        raise InputError(f"{file} is not a readable YAML file: {ex}.") from ex
    return _mapping(_mapping(tree, str(file)).get("dataset"), f"{file}: dataset")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{where} is {value!r}, expected names with values.")
    return value or {}


def _value(text: str, name: str, option: str) -> Any:
    try:
        return load_yaml(text)
    except NoYamlError as ex:
        raise InputError(f"{option} {name}={text} is no value in YAML: put it in quotes.") from ex
