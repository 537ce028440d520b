"""The evaluation recipe: any checkpoint of a training run on any split of any data set."""

from __future__ import annotations

from dataclasses import replace

from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext
from fairseq2.recipe.error import RecipeError
from fairseq2.runtime.dependency import DependencyContainer
from fairseq2.utils.progress import ProgressReporter
from typing_extensions import override

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.unused_options import recorded_options
from atr_moco_plugin.hosts.fairseq2.compat import EvalRecipe, Task, config_as, dataset_as
from atr_moco_plugin.hosts.fairseq2.config.checks import check_attention, check_clip_length
from atr_moco_plugin.hosts.fairseq2.config.evaluate import EvaluateRecipeConfig, options_of_the_run
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import open_checkpoint
from atr_moco_plugin.hosts.fairseq2.evaluation.task import Evaluate
from atr_moco_plugin.hosts.fairseq2.runs.folder import run_folder
from atr_moco_plugin.hosts.fairseq2.runs.output import check_for_evaluation, remove_evaluation
from atr_moco_plugin.hosts.fairseq2.setup import register_all
from atr_moco_plugin.io.lock import lock_folder


class EvaluateRecipe(EvalRecipe):
    """Evaluate retrieval with a checkpoint of a training run.

    Attributes:
        started: whether an earlier evaluation in its folder has made room for this one.
    """

    def __init__(self) -> None:
        self.started = False

    @property
    @override
    def config_kls(self) -> type[object]:
        return EvaluateRecipeConfig

    @override
    def register(self, container: DependencyContainer) -> None:
        register_all(container)

    @override
    @one_line_errors()
    def create_task(self, context: RecipeContext) -> Task:
        config = config_as(context, EvaluateRecipeConfig)
        check_for_evaluation(context.output_dir, overwrite=config.overwrite)
        lock_folder(context.output_dir)
        if config.run is None:
            raise RecipeError(
                "`run` is missing; give the output folder of a training run: --config run=FOLDER."
            )
        checkpoint = open_checkpoint(run_folder(config.run), config.checkpoint)
        model = checkpoint.model
        check_attention(model, config.common)
        check_clip_length(model, dataset=config.dataset.max_seconds or 0)
        with recorded_options(options_of_the_run(config.dataset, checkpoint.trained)):
            dataset = dataset_as(context, AudioTextDataset)
        dataset.read_with(AudioReader(model.sample_rate, config.dataset.decoder or "soundfile"))
        dataset.cache = False  # every clip is read once
        log.info("{}", dataset.summary())
        device = context.gangs.root.device
        task = Evaluate(
            config,
            replace(checkpoint, model=model.to(device)),
            dataset,
            device,
            context.output_dir,
            context.resolver.resolve(ProgressReporter),
        )
        self.started = True
        if context.gangs.root.rank == 0:
            remove_evaluation(context.output_dir)
        return task
