"""A checkpoint of a training run as a model that is ready to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq2.recipe.error import RecipeError
from torch import Tensor

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.hosts.fairseq2.runs.folder import (
    find_checkpoint,
    load_model,
    read_config,
    read_model_config,
    read_state,
)
from atr_moco_plugin.model import RetrievalModel, build_model, model_config
from atr_moco_plugin.plugins import load


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it comes from.

    Attributes:
        run: the run's folder.
        folder: the checkpoint's folder.
        trained: the run's configuration.
        model: the model, in eval mode.
        temperature: the trained temperature tau.
    """

    run: Path
    folder: Path
    trained: dict[str, Any]
    model: RetrievalModel
    temperature: float

    @property
    def criterion(self) -> str:
        """Name of the criterion it was trained with."""
        section = self.trained["criterion"]
        return str(section if isinstance(section, str) else section["name"])

    @property
    def matches(self) -> bool:
        """Whether the matching head was trained."""
        return "loss_atm" in load("criteria", self.criterion).measures


def open_checkpoint(path: Path, which: str | None = None) -> Checkpoint:
    """The model of a checkpoint with its trained weights, on the CPU.

    Args:
        path: a run's output folder, or one of its ``checkpoints/step_N``.
        which: see :func:`~atr_moco_plugin.hosts.fairseq2.runs.folder.find_checkpoint`.

    Raises:
        RecipeError: naming the file that is missing or cannot be read.
        InputError: for a part of the model that is not installed.
    """
    run, folder = find_checkpoint(path, which)
    trained = read_config(run)
    model = build_model(model_config(read_model_config(run)))
    shards = read_state(folder)
    load_model(model, shards, folder)
    model.requires_grad_(False).eval()
    return Checkpoint(run, folder, trained, model, temperature_of(shards))


def temperature_of(shards: Sequence[Mapping[str, Tensor]]) -> float:
    """The trained temperature of a checkpoint, clipped as in training."""
    for shard in shards:  # under FSDP one of them has it
        if "temperature" in shard and shard["temperature"].numel() == 1:
            return float(shard["temperature"].float().clamp(*TEMPERATURE_RANGE))
    raise RecipeError("The checkpoint has no temperature, so it is not one of this package's runs.")
