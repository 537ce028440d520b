"""The evaluation recipe: any checkpoint of a training run on any split of any data set."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq2.logging import log
from fairseq2.recipe.base import Recipe, RecipeContext
from fairseq2.recipe.cli import main
from fairseq2.recipe.error import RecipeError
from fairseq2.runtime.dependency import DependencyContainer, DependencyResolver
from fairseq2.task import Task
from fairseq2.utils.config import ConfigMerger
from fairseq2.utils.structured import StructureError, ValueConverter
from torch import Tensor
from torch.nn import Module
from typing_extensions import override

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.hosts.fairseq2.errors import ReadableLog, one_line_errors
from atr_moco_plugin.hosts.fairseq2.evaluate_config import EvaluateRecipeConfig
from atr_moco_plugin.hosts.fairseq2.evaluate_task import Checkpoint, Evaluate
from atr_moco_plugin.hosts.fairseq2.model import ARCHITECTURES, FAMILY
from atr_moco_plugin.hosts.fairseq2.runs import (
    find_checkpoint,
    load_model,
    read_config,
    read_state,
)
from atr_moco_plugin.hosts.fairseq2.setup import register_all
from atr_moco_plugin.model import RetrievalModelConfig, build_model


def run_evaluation() -> None:
    """Evaluate with the arguments of the command line.

    Raises:
        SystemExit: when the output folder is a training run's, whose files would be overwritten.
    """
    for argument in sys.argv[1:]:
        if "=" not in argument and (Path(argument) / "checkpoints").is_dir():
            raise SystemExit(
                f"{argument} is the output folder of a training run; give the evaluation a folder "
                "of its own, since it would overwrite config.yaml and retrieval.json there."
            )
    logging.getLogger("fairseq2").addFilter(ReadableLog())
    main(EvaluateRecipe())


class EvaluateRecipe(Recipe):
    """Evaluate retrieval with a checkpoint of a training run."""

    @property
    @override
    def config_kls(self) -> type[object]:
        return EvaluateRecipeConfig

    @override
    def register(self, container: DependencyContainer) -> None:
        register_all(container)

    @override
    def create_task(self, context: RecipeContext) -> Task:
        with one_line_errors():
            return self._create_task(context)

    def _create_task(self, context: RecipeContext) -> Task:
        config = context.get_config_as(EvaluateRecipeConfig)
        if config.run is None:
            raise RecipeError(
                "`run` is missing; give the output folder of a training run: --config run=FOLDER."
            )
        run, checkpoint = find_checkpoint(Path(config.run).expanduser(), config.checkpoint)
        trained = read_config(run)
        model = make_model(trained["model"], context.resolver)
        shards = read_state(checkpoint)
        load_model(model, shards, checkpoint)
        model.requires_grad_(False).eval()
        dataset = context.get_dataset_as(AudioTextDataset)
        dataset.cache = False  # every clip is read once
        log.info("{}", dataset.summary())
        return Evaluate(
            config,
            Checkpoint(run, checkpoint, trained, model.to(context.device), temperature_of(shards)),
            dataset,
            context.device,
            context.output_dir,
            context.progress_reporter,
        )


def make_model(section: Mapping[str, Any], resolver: DependencyResolver) -> Module:
    """A model from the section ``model`` of a training run, with weights that are to be replaced.

    Raises:
        RecipeError: when it is of another family, or its configuration does not fit any more.
    """
    if section["family"] != FAMILY or section["arch"] not in (None, *ARCHITECTURES):
        raise RecipeError(
            f"The run's model is {section['family']}/{section['arch']}, but what can be evaluated "
            f"is {FAMILY} with one of the architectures {', '.join(ARCHITECTURES)}."
        )
    config = ARCHITECTURES[section["arch"] or "base"]()
    converter, merger = resolver.resolve(ValueConverter), resolver.resolve(ConfigMerger)
    merged = merger.merge(converter.unstructure(config), section["config_overrides"] or {})
    try:
        return build_model(converter.structure(merged, RetrievalModelConfig))
    except StructureError as ex:
        raise RecipeError(f"The run's model section cannot be read: {ex}") from None


def temperature_of(shards: Sequence[Mapping[str, Tensor]]) -> float:
    """The trained temperature of a checkpoint, clipped as in training."""
    for shard in shards:  # under FSDP one of them has it
        if "temperature" in shard and shard["temperature"].numel() == 1:
            return float(shard["temperature"].float().clamp(*TEMPERATURE_RANGE))
    raise RecipeError("The checkpoint has no temperature, so it is not one of this package's runs.")
