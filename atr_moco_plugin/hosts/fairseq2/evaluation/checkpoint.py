"""A checkpoint of a training run as a model that is ready to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fairseq2.recipe.error import RecipeError
from torch import Tensor

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.criterion.matching_start import head_is_trained
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
        factor: of the distance that the criterion has learned, see
            :mod:`atr_moco_plugin.learned_distance`; None where the model ranks by cosine.
        head_trained: whether the state says that the matching head, if any, has made a step.
    """

    run: Path
    folder: Path
    trained: dict[str, Any]
    model: RetrievalModel
    temperature: float
    factor: Tensor | None = None
    head_trained: bool = True

    @property
    def criterion(self) -> str:
        """Name of the criterion it was trained with."""
        section = self.trained["criterion"]
        return str(section if isinstance(section, str) else section["name"])

    @property
    def matches(self) -> bool:
        """Whether the matching head was trained."""
        return self.head_trained and "loss_atm" in load("criteria", self.criterion).measures


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
    # Under FSDP, which shards the rows of a parameter and no buffer, any shard says so.
    trained_head = all(map(head_is_trained, shards))
    checkpoint = Checkpoint(
        run, folder, trained, model, temperature_of(shards), head_trained=trained_head
    )
    criterion = load("criteria", checkpoint.criterion)
    if not hasattr(criterion, "distance_factor"):
        return checkpoint
    own = _own_tensors(shards, model.embed_dim)
    return replace(checkpoint, factor=criterion.distance_factor(own))


def _own_tensors(shards: Sequence[Mapping[str, Tensor]], embed_dim: int) -> dict[str, Tensor]:
    """The criterion's own tensors, those of a row for each dimension put together again."""
    parts = {name: [shard[name] for shard in shards] for name in shards[0] if "." not in name}
    return {
        name: x[0] if x[0].shape[:1] in ((), (embed_dim,)) else torch.cat(x)
        for name, x in parts.items()
    }


def temperature_of(shards: Sequence[Mapping[str, Tensor]]) -> float:
    """The trained temperature of a checkpoint, clipped as in training."""
    for shard in shards:  # under FSDP one of them has it
        if "temperature" in shard and shard["temperature"].numel() == 1:
            return float(shard["temperature"].float().clamp(*TEMPERATURE_RANGE))
    raise RecipeError("The checkpoint has no temperature, so it is not one of this package's runs.")
