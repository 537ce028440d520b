"""What model the checkpoints of a run are of, compared when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairseq2.device import Device

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.processes import from_first
from atr_moco_plugin.hosts.fairseq2.runs.folder import (
    MODEL_FILE,
    read_model_config,
    save_model_config,
)
from atr_moco_plugin.io.checkpoints import step_folders
from atr_moco_plugin.model import RetrievalModelConfig, model_config
from atr_moco_plugin.plugins import load

_PARTS = {"audio": "audio_encoders", "text": "text_encoders", "head": "heads"}


def check_model(
    output_dir: Path,
    checkpoints: Path,
    config: RetrievalModelConfig,
    device: Device,
    *,
    stated: RetrievalModelConfig | None = None,
) -> None:
    """Refuse to go on with another model than the run has in its checkpoints, and note this one.

    Many options change no weight's name or shape, so that a checkpoint is loaded all the same:
    dropouts, heads of an attention, poolings. What is frozen is not compared here, since a
    checkpoint has no state of the optimizer for it.

    Args:
        output_dir: the run's folder, with the model that it has had until now.
        checkpoints: where it saves.
        config: of :func:`~atr_moco_plugin.model.built_config`, of the model that it has now.
        device: where the process group exchanges tensors.
        stated: what the run's own configuration says of the model. Where it freezes layers and
            leaves the adapter's ``targets`` out, so did the run, and what has written their names
            is a later version.

    Raises:
        InputError: on every process, naming what has changed.
    """

    def check() -> None:
        if step_folders(checkpoints, "step_") and (output_dir / MODEL_FILE).is_file():
            before = _all_options(model_config(read_model_config(output_dir)))
            now = _all_options(config)
            if stated is not None:
                _name_targets(before, now, stated)
            changed = "; ".join(_changed(before, now, "model.config_overrides."))
            if changed:
                raise InputError(
                    f"The run cannot go on with another model: {changed}. Give it the one it began "
                    "with, or start a new run from its weights with `init=RUN` and another output "
                    "folder."
                )
        save_model_config(output_dir, config)

    from_first(check, device)


def _all_options(config: RetrievalModelConfig) -> dict[str, Any]:
    """The options of a model as JSON has them, with the defaults of those that are left out."""
    values = asdict(config)
    for name, group in _PARTS.items():
        part = values[name]
        # What another version of a plugin wrote may not be what it takes now.
        with suppress(InputError):
            kind = load(group, part["name"]).config_class
            part["config"] = asdict(build_config(kind, part["config"], f"model.{name}.config"))
    return dict(json.loads(json.dumps(values, default=str)))


def _name_targets(
    before: Mapping[str, Any], now: Mapping[str, Any], stated: RetrievalModelConfig
) -> None:
    """Give adapters of before the layers that those of now name because others are frozen."""
    for name, part in (("audio", stated.audio), ("text", stated.text)):
        if part.freeze == "none" or part.adapter is None or part.adapter.lora.targets is not None:
            continue
        was, placed = before[name]["adapter"], now[name]["adapter"]
        if was is not None and was["lora"]["targets"] is None:
            was["lora"]["targets"] = placed["lora"]["targets"]


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Each option that differs, by its whole key. One that only one of the two has is of another
    version of its part, unless it is within an option that is a mapping itself."""
    within = ".config." in prefix and not prefix.endswith(".config.")
    for key in dict.fromkeys((*before, *now)):
        if not within and not (key in before and key in now):
            continue
        was, value = (of.get(key, "not set") for of in (before, now))
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            yield from _changed(was, value, f"{prefix}{key}.")
        elif was != value:
            yield f"{prefix}{key} was {was} and is {value}"
