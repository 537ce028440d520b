"""The training recipe: model, data, criterion and evaluation put together for fairseq2."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fairseq2.checkpoint import CheckpointManager
from fairseq2.logging import log
from fairseq2.metrics.recorders import MetricRecorder
from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.recipe.base import RecipeContext
from fairseq2.recipe.model import RecipeModel
from fairseq2.runtime.dependency import DependencyContainer
from torch.optim import Optimizer
from typing_extensions import override

from atr_moco_plugin.criterion import MocoAtc
from atr_moco_plugin.criterion.chunks import use_chunks
from atr_moco_plugin.criterion.kept_options import other_length
from atr_moco_plugin.criterion.positives import check_shared_clips
from atr_moco_plugin.criterion.queue_pair import stale_copies
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.training import first_pairs
from atr_moco_plugin.evaluation.trained_clips import keep_trained_clips
from atr_moco_plugin.hosts.fairseq2 import compat
from atr_moco_plugin.hosts.fairseq2.config.checks import check_attention, check_clip_length
from atr_moco_plugin.hosts.fairseq2.config.init import KINDS, check_pretrained
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.evaluation.unit import NoBatches, RetrievalEvalUnit
from atr_moco_plugin.hosts.fairseq2.processes import StopRequest
from atr_moco_plugin.hosts.fairseq2.runs.model import check_model
from atr_moco_plugin.hosts.fairseq2.runs.output import check_name
from atr_moco_plugin.hosts.fairseq2.runs.resume import (
    check_options,
    optimizer_options,
    prepare_resume,
)
from atr_moco_plugin.hosts.fairseq2.runs.scores import check_same
from atr_moco_plugin.hosts.fairseq2.runs.settings import (
    check_settings,
    recorded_length,
    training_settings,
)
from atr_moco_plugin.hosts.fairseq2.setup import register_all
from atr_moco_plugin.hosts.fairseq2.training.caches import open_caches_of_run
from atr_moco_plugin.hosts.fairseq2.training.data import (
    evaluated_splits,
    make_tokenizer,
    train_reader,
)
from atr_moco_plugin.hosts.fairseq2.training.early import (
    check_early,
    score_dependencies,
    validation_candidates,
)
from atr_moco_plugin.hosts.fairseq2.training.hooks import lost_records, make_hooks
from atr_moco_plugin.hosts.fairseq2.training.safety import make_guard
from atr_moco_plugin.hosts.fairseq2.training.task import TrainAndEvaluate
from atr_moco_plugin.hosts.fairseq2.training.unit import RetrievalTrainUnit
from atr_moco_plugin.io.checkpoints import step_folders
from atr_moco_plugin.io.lock import lock_folder
from atr_moco_plugin.io.paths import expanded
from atr_moco_plugin.model.building import adapt_model, built_config
from atr_moco_plugin.safety.names import name_clips_of
from atr_moco_plugin.teaching import use_teachers
from atr_moco_plugin.text.tokenizer import tokenize


class RetrievalRecipe(compat.TrainRecipe):
    """Train a retrieval model and evaluate its best checkpoint.

    Args:
        config_class: a :class:`RetrievalRecipeConfig` whose defaults are the recipe's.
        start: what the weights come from, where ``init`` is a copy of them.

    Attributes:
        started: whether the run has gone on from what is in its folder, or begun a new one there.
        stopped: whether it was asked to stop, and goes on another time.
    """

    def __init__(
        self, config_class: type[RetrievalRecipeConfig], start: Path | None = None
    ) -> None:
        self._config_class = config_class
        self._start = start
        self.started = self.stopped = False

    @property
    @override
    def config_kls(self) -> type[object]:
        return self._config_class

    @override
    def register(self, container: DependencyContainer) -> None:
        register_all(container)

    @override
    def prepare_model(self, context: RecipeContext, model: RecipeModel) -> Any:
        # The criterion owns momentum copies, queues and temperature, so it is what is trained,
        # wrapped for data parallelism and saved. In 0.8.1 a module returned by `setup_model` is
        # thrown away again right after; this older hook is there in 0.7 too.
        config = compat.config_as(context, RetrievalRecipeConfig)
        plain: Any = model.module
        check_attention(plain, config.common)
        check_clip_length(
            plain, dataset=config.dataset.max_seconds, evaluation=config.evaluated_seconds
        )
        with one_line_errors():
            # The command line did both, but for sweep folders and for runs from Python.
            check_name(compat.checkpoint_dir(context))
            lock_folder(context.output_dir)
            plain.freeze()  # fairseq2 has made every parameter trainable
            adapt_model(plain)
            if config.init == "pretrained":
                check_pretrained(plain)
            criterion = config.criterion_section.build(plain)
            use_chunks(criterion, config.trainer.grad_cache.chunk_size)
            captions, mix = config.dataset.captions_per_clip, config.dataset.mix
            check_shared_clips(criterion, captions, mixes=mix is not None)
            # After all plugins are imported, which say what of theirs may be in a checkpoint.
            prepare_resume(context.output_dir, compat.checkpoint_dir(context), context.gangs)
            check_model(
                context.output_dir,
                compat.checkpoint_dir(context),
                built_config(plain.config, plain),
                context.gangs.root.device,
                stated=plain.config,
            )
        return compat.replaced(model, criterion)

    @override
    def has_static_autograd_graph(self, context: RecipeContext) -> bool:
        # False is DDP's find_unused_parameters, a walk over the graph in every step.
        return compat.config_as(context, RetrievalRecipeConfig).criterion_section.static_graph

    @override
    @one_line_errors()
    def create_task(self, context: RecipeContext) -> compat.Task:
        config, gangs = compat.config_as(context, RetrievalRecipeConfig), context.gangs
        resolve = context.resolver.resolve
        criterion = compat.trained_module(context)
        dataset = compat.dataset_as(context, AudioTextDataset)
        section = config.dataset
        dataset.read_with(
            AudioReader(criterion.model.sample_rate, section.decoder, section.cache_dir)
        )
        log.info("{}", dataset.summary())
        tokenizer = make_tokenizer(config, dataset, criterion.model)
        settings = training_settings(config, criterion.model.config, tokenizer)
        checkpoint_dir = compat.checkpoint_dir(context)
        check_early(config, dataset, settings, checkpoint_dir, gangs)
        to_tokens = partial(tokenize, tokenizer, max_tokens=config.tokenizer.max_tokens)
        caches = open_caches_of_run(config, criterion.model, dataset, to_tokens, gangs)
        outputs = None if caches is None else caches.outputs
        reader = train_reader(config, dataset, to_tokens, gangs, context.output_dir, outputs)
        train_pairs = reader.loader.num_examples
        use_teachers(
            criterion,
            dataset,
            section.train_split,
            folder=context.output_dir,
            batch_size=config.evaluation.batch_size,
            num_workers=section.num_workers,
            say=partial(log.info, "{}"),
        )
        if hasattr(criterion, "set_data"):
            criterion.set_data(dataset.fingerprint())
        fit_queue(criterion, train_pairs)
        num_steps, num_epochs = config.regime.num_steps, config.regime.num_data_epochs
        criterion.total_steps = reader.run_length(num_steps, num_epochs)
        if num_steps is not None and criterion.total_steps < num_steps:
            log.warning(
                "`regime.num_data_epochs` ends the run after {:,} steps and not after the {:,} of "
                "`regime.num_steps`, for which the learning rate's schedule is made: set "
                "`regime.num_steps={}`.",
                criterion.total_steps,
                num_steps,
                criterion.total_steps,
            )
        if getattr(criterion, "matching_since", 0) < 0:
            log.info(
                "A step takes more memory once the matching loss has begun: where it is tight, try "
                "a few steps with `criterion.config.atm_start=0` first."
            )
        for note in lost_records(config.hooks if criterion.queues else {}, config.regime):
            log.warning("{}", note)
        unit = RetrievalTrainUnit(
            criterion,
            compat.data_parallel_model(context),
            make_hooks(
                config.hooks,
                criterion,
                context,
                partial(
                    first_pairs,
                    dataset,
                    to_tokens,
                    section,
                    max_seconds=section.max_seconds,
                    outputs=outputs,
                ),
                compiled=config.model.compile,
            ),
            resolve(MetricRecorder),
            make_guard(
                context,
                criterion,
                max_skipped=config.safety.max_skipped_steps,
                name_clips=name_clips_of(dataset, section.train_split),
            ),
            warn_after=(criterion.total_steps or 1_000) // 2,
        )
        # Everything that can be known about the evaluations is found out before the first step, and
        # after the checks that take no time.
        splits = evaluated_splits(config, dataset, to_tokens, context.output_dir, gangs, caches)
        # An untrained head would only shuffle the candidates.
        rerank_k = config.evaluation.rerank_k if config.criterion_section.matches else 0
        units = {
            name: RetrievalEvalUnit(criterion, split, rerank_k, gangs.root.device)
            for name, split in splits.items()
        }
        valid = splits[section.valid_split]
        scored = score_dependencies(config) | {"number of clips": len(valid.retrieval_set.clips)}
        check_same(checkpoint_dir, scored, gangs.root.device)
        valid_k = validation_candidates(config)
        valid_unit = RetrievalEvalUnit(criterion, valid, valid_k, gangs.root.device)
        trainer = compat.create_trainer(context, unit, reader, valid_unit, NoBatches())
        stop, checkpoints = StopRequest(gangs), resolve(CheckpointManager)
        options = partial(optimizer_options, resolve(LRScheduler), resolve(Optimizer))
        configured = options()

        def start() -> None:
            """The checkpoint is loaded, if there is one; a whole run makes no step."""
            if not self.started:
                check_options(configured, options())
                steps, before = criterion.total_steps, recorded_length(checkpoint_dir)
                check_settings(checkpoint_dir, settings, gangs.root.device, total_steps=steps)
                if gangs.root.rank == 0:
                    if note := other_length(criterion, before, steps):
                        log.warning("{}", note)
                    tokenizer.save_pretrained(context.output_dir / "tokenizer")
                if caches is not None:
                    caches.check_weights(criterion.model)
            self.started = True

        def before_step() -> None:
            begins = not self.started
            start()
            if begins and gangs.root.rank == 0:
                own = None if config.init in KINDS else expanded(config.init, "init")
                # Before the first step: a run that makes none has no other clips than it had.
                keep_trained_clips(
                    context.output_dir,
                    dataset,
                    section.train_split,
                    section.valid_split,
                    goes_on=bool(step_folders(checkpoint_dir, "step_")),
                    start=self._start or own,
                    test_split=config.evaluation.test_split,
                )
            if stop.agreed():
                self.stopped = True
                compat.save_and_stop(trainer, checkpoints, gangs)

        reader.before_step = before_step
        return TrainAndEvaluate(
            trainer=trainer,
            on_trained=start,
            stop=stop,
            criterion=criterion,
            model=compat.parallel_facade(context),
            checkpoints=checkpoints,
            checkpoint_dir=checkpoint_dir,
            units=units,
            dataset=dataset,
            train_pairs=train_pairs,
            output_dir=context.output_dir,
            config=config,
            gangs=gangs,
        )


def fit_queue(criterion: Any, num_examples: int) -> None:
    """Let no queue grow beyond an epoch, and warn of one that is longer from the start.

    Such a queue holds every item more than once.
    """
    if isinstance(criterion, MocoAtc):
        criterion.limit_growth(num_examples)
    if (warning := stale_copies(criterion.queues, num_examples)) is not None:
        log.warning("{}", warning)
