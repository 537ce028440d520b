"""Settings that decide what a run trains, and that no state in a checkpoint is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairseq2.device import Device

from atr_moco_plugin.criterion.kept_options import kept_options
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.runs.recorded import check_recorded
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.io.checkpoints import step_folders
from atr_moco_plugin.io.json_files import object_if_whole
from atr_moco_plugin.model import RetrievalModelConfig

FILE = "trained_with.json"
"""In the folder of the checkpoints."""
_LENGTH = "total_steps"
VOCABULARY = "the vocabulary of the tokenizer (its digest)"
"""The setting that follows the captions where ``tokenizer.name`` is not set."""


def training_settings(
    config: RetrievalRecipeConfig, model: RetrievalModelConfig, tokenizer: Any
) -> dict[str, Any]:
    """The options of the criterion, of a step and of the tokenizer, by their keys, and that of the
    model which is a choice of its run alone.

    Args:
        config: the recipe's.
        model: of the model.
        tokenizer: of the captions.
    """
    section, trainer = config.criterion_section, config.trainer
    vocabulary = (f"{number} {token}" for token, number in sorted(tokenizer.get_vocab().items()))
    dropped = model.patch_dropout
    found = {
        "model.config_overrides.patch_dropout": None if dropped is None else asdict(dropped),
        "criterion.name": section.name,
        "trainer.grad_accumulation.num_batches": trainer.grad_accumulation.num_batches,
        "trainer.max_grad_norm": trainer.max_grad_norm,
        "trainer.mixed_precision": asdict(trainer.mixed_precision),
        "tokenizer.max_tokens": config.tokenizer.max_tokens,
        VOCABULARY: stable_digest("vocabulary", *vocabulary),
    }
    found |= {f"criterion.config.{name}": x for name, x in kept_options(section.config).items()}
    return dict(json.loads(json.dumps(found, default=str)))


def check_settings(
    checkpoints: Path,
    settings: Mapping[str, Any],
    device: Device,
    *,
    keep: bool = True,
    total_steps: int | None = None,
) -> None:
    """Refuse to go on with other settings than the checkpoints were trained with.

    Args:
        checkpoints: where the run saves.
        settings: of :func:`training_settings`.
        device: where the process group exchanges tensors.
        keep: note them for the next time; without it a part of them is enough.
        total_steps: of the run, noted for :func:`recorded_length`; another number is no refusal.

    Raises:
        InputError: on every process, naming what has changed.
    """
    check_recorded(
        checkpoints / FILE,
        settings,
        lambda: bool(step_folders(checkpoints, "step_")),
        lambda changed: (
            f"The run cannot go on with other settings: {changed}. Give it those it began with, or "
            "start a new run from its weights with `init=RUN` and another output folder."
        ),
        device,
        keep=keep,
        besides={_LENGTH: total_steps},
    )


def recorded_length(checkpoints: Path) -> int | None:
    """The ``total_steps`` of the run that a run goes on from; None where it is a new one, or was
    made before they were noted."""
    begun = bool(step_folders(checkpoints, "step_"))
    steps = object_if_whole(checkpoints / FILE).get(_LENGTH) if begun else None
    return steps if isinstance(steps, int) else None
