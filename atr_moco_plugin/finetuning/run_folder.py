"""The output folder of a fine-tuning: its configuration, and whether a run goes on there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import flattened, same_value
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.yaml12 import NoYamlError, dump_yaml, load_yaml

CONFIG_FILE = "config.yaml"

START_FOLDER = "start"
"""In the output folder of fairseq2's loop: the values for fairseq2, and the weights and tokenizer
of a trained start."""

START_CONFIG = f"{START_FOLDER}/{CONFIG_FILE}"
"""The configuration of a run of fairseq2's loop, which has a ``config.yaml`` of its own."""

_MAY_CHANGE = (
    "report", "dataset.num_workers", "dataset.prefetch", "dataset.cache_dir",
    "dataset.cache_embeddings", "trainer.grad_cache.chunk_size",
)  # fmt: skip
"""Keys that change nothing of what is trained."""


CHECKPOINTS = {"fairseq2": "checkpoints/step_*", "transformers": "checkpoint-*"}
"""A loop to the pattern of its checkpoints in the output folder."""


def has_begun(out: Path) -> bool:
    """Whether a run of either loop has saved a checkpoint in a folder."""
    return any(any(out.glob(pattern)) for pattern in CHECKPOINTS.values())


def settle_folder(out: Path, config: FinetuneConfig, name: str = CONFIG_FILE) -> None:
    """Write the configuration of a run, unless a run with another one has begun there.

    Args:
        out: the output folder.
        config: every value.
        name: of the file in the folder.

    Raises:
        InputError: as :func:`check_run_folder` does.
    """
    check_run_folder(out, config, name)
    write_atomically(out / name, dump_yaml(plain(config)))


def check_run_folder(out: Path, config: FinetuneConfig, name: str = CONFIG_FILE) -> None:
    """Refuse the folder of a run with another configuration; nothing is written.

    Args:
        out: the output folder.
        config: every value.
        name: of the file in the folder.

    Raises:
        InputError: the folder has checkpoints of other settings, or is another loop's or an
            evaluation's.
    """
    values, before = plain(config), _read(out / name)
    for loop, checkpoints in CHECKPOINTS.items():
        if loop != config.loop and any(out.glob(checkpoints)):
            raise InputError(
                f"{out} holds a run of the loop `{loop}`, and this one is of `{config.loop}`: set "
                f"`loop={loop}` to go on with it, or give another output folder."
            )
    if any(out.glob(CHECKPOINTS[config.loop])):
        # What a run of an earlier release did not have is at its default there.
        begun = flattened(plain(FinetuneConfig())) | flattened(before)
        changed = _changes(begun, flattened(values))
        if changed:
            raise InputError(
                f"{out} holds a run with other settings ({'; '.join(changed[:3])}): take those to "
                "go on with it, or give another output folder."
            )
    elif before and before.get("loop") != values["loop"]:
        raise InputError(
            f"{out} is the output folder of something else, as its {name} says: give another one."
        )


def settings_of(out: Path) -> dict[str, Any]:
    """The configuration of the run of either loop in a folder; empty where there is none."""
    return next(filter(None, (_read(out / name) for name in (START_CONFIG, CONFIG_FILE))), {})


def plain(config: FinetuneConfig) -> dict[str, Any]:
    """A configuration of YAML's types."""
    values: dict[str, Any] = _plain(asdict(config))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, Path) else value


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    keys = dict.fromkeys((*now, *before))
    # An empty section beside one with options: each of those is named.
    empty = {
        key
        for key in keys
        if {} in (before.get(key), now.get(key)) and any(x.startswith(f"{key}.") for x in keys)
    }
    return [
        f"{key} was {before.get(key)} and is {now.get(key)}"
        for key in keys
        if not same_value(before.get(key), now.get(key)) and key not in empty.union(_MAY_CHANGE)
    ]


def _read(file: Path) -> dict[str, Any]:
    try:
        content = load_yaml(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, NoYamlError) as ex:
        raise InputError(
            f"{file} cannot be read: give another output folder, or remove it ({ex})."
        ) from ex
    return content if isinstance(content, dict) else {}
