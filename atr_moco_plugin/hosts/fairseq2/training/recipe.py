"""The training recipe: model, data, criterion and evaluation put together for fairseq2."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fairseq2.checkpoint import CheckpointManager
from fairseq2.gang import Gangs
from fairseq2.logging import log
from fairseq2.metrics.recorders import MetricRecorder
from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.recipe.base import RecipeContext
from fairseq2.recipe.error import RecipeError
from fairseq2.recipe.model import RecipeModel
from fairseq2.runtime.dependency import DependencyContainer
from torch.nn import Module
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerFast
from typing_extensions import override

from atr_moco_plugin.criterion import MocoAtc
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset, RetrievalSet
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.encode import CaptionBatches, distinct_captions
from atr_moco_plugin.hosts.fairseq2.compat import (
    Task,
    TrainRecipe,
    checkpoint_dir,
    config_as,
    create_trainer,
    data_parallel_model,
    dataset_as,
    parallel_facade,
    replaced,
    save_and_stop,
    trained_module,
)
from atr_moco_plugin.hosts.fairseq2.config.arguments import check_name
from atr_moco_plugin.hosts.fairseq2.config.init import check_pretrained
from atr_moco_plugin.hosts.fairseq2.config.recipe import (
    CaptionTokenizerSection,
    RetrievalDatasetSection,
    RetrievalRecipeConfig,
)
from atr_moco_plugin.hosts.fairseq2.config.refused import check_attention
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.evaluation.clips import check_enough, left_out
from atr_moco_plugin.hosts.fairseq2.runs.folder import save_model_config
from atr_moco_plugin.hosts.fairseq2.runs.record import Record
from atr_moco_plugin.hosts.fairseq2.runs.resume import Unchanged, settle
from atr_moco_plugin.hosts.fairseq2.runs.scores import check_same, splits_in_two_roles
from atr_moco_plugin.hosts.fairseq2.setup import register_all
from atr_moco_plugin.hosts.fairseq2.training.batches import ClipReader, PairReader
from atr_moco_plugin.hosts.fairseq2.training.safety import make_guard
from atr_moco_plugin.hosts.fairseq2.training.skipped import SkippedClips
from atr_moco_plugin.hosts.fairseq2.training.stop import StopRequest
from atr_moco_plugin.hosts.fairseq2.training.task import TrainAndEvaluate
from atr_moco_plugin.hosts.fairseq2.training.units import (
    RetrievalEvalUnit,
    RetrievalTrainUnit,
    reported,
)
from atr_moco_plugin.io.lock import claim
from atr_moco_plugin.plugins import load
from atr_moco_plugin.safety.names import name_clips_of
from atr_moco_plugin.text.checks import check_captions, check_tokenizer
from atr_moco_plugin.text.tokenizer import load_tokenizer, tokenize, train_wordpiece


class RetrievalRecipe(TrainRecipe):
    """Train a retrieval model and evaluate its best checkpoint.

    Args:
        config_class: a :class:`RetrievalRecipeConfig` whose defaults are the recipe's.
        record: of the output folder; told when the run goes on from what is there.
    """

    def __init__(
        self, config_class: type[RetrievalRecipeConfig], record: Record | None = None
    ) -> None:
        self._config_class = config_class
        self._record = record

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
        config = self._config(context)
        check_attention(model.module, config.common)
        with one_line_errors():
            # The command line did both, but for sweep folders and for runs from Python.
            check_name(checkpoint_dir(context))
            claim(context.output_dir)
        model.module.freeze()  # fairseq2 has made every parameter trainable
        if config.init == "pretrained":
            check_pretrained(model.module)
        with one_line_errors():
            criterion = config.criterion_section.build(model.module)
        # After all plugins are imported, which say what of theirs may be in a checkpoint.
        settle(context.output_dir, checkpoint_dir(context), context.gangs)
        if context.gangs.root.rank == 0:
            save_model_config(context.output_dir, model.config, model.module)
        return replaced(model, criterion)

    @override
    def has_static_autograd_graph(self, context: RecipeContext) -> bool:
        # False would be DDP's find_unused_parameters, a walk over the graph in every step. Only a
        # criterion that leaves a part of the model out needs it, as those without a matching loss
        # do with the head.
        return self._config(context).criterion_section.matches

    @override
    def create_task(self, context: RecipeContext) -> Task:
        with one_line_errors():
            return self._create_task(context)

    def _create_task(self, context: RecipeContext) -> Task:
        config = self._config(context)
        criterion = trained_module(context)
        dataset = dataset_as(context, AudioTextDataset)
        dataset.read_with(
            AudioReader(
                criterion.model.sample_rate, config.dataset.decoder, config.dataset.cache_dir
            )
        )
        log.info("{}", dataset.summary())
        tokenizer = make_tokenizer(
            config.tokenizer,
            (text for clip in dataset.clips(config.dataset.train_split) for text in clip.captions),
        )
        check_text(config, tokenizer, criterion.model, dataset)
        if context.gangs.root.rank == 0:
            tokenizer.save_pretrained(context.output_dir / "tokenizer")
        to_tokens = partial(tokenize, tokenizer, max_tokens=config.tokenizer.max_tokens)

        # An untrained head would only shuffle the candidates.
        rerank_k = config.evaluation.rerank_k if config.criterion_section.matches else 0
        skipped = SkippedClips(context.output_dir, context.gangs.dp.rank)
        reader = train_reader(config, dataset, to_tokens, context.gangs, skipped)
        if isinstance(criterion, MocoAtc):
            criterion.set_data(dataset.fingerprint())
        fit_queue(criterion, reader.num_examples)
        unit = RetrievalTrainUnit(
            criterion,
            data_parallel_model(context),
            make_hooks(config.hooks, criterion, context),
            context.resolver.resolve(MetricRecorder),
            make_guard(
                context,
                criterion,
                max_skipped=config.safety.max_skipped_steps,
                name_clips=name_clips_of(dataset, config.dataset.train_split),
            ),
            warn_after=(config.regime.num_steps or 1_000) // 2,
        )
        # Everything about the evaluations that can be known is found out before the first step, and
        # after what takes no time to be told.
        valid_split, test_split = config.dataset.valid_split, config.evaluation.test_split
        for note in splits_in_two_roles(config.dataset.train_split, valid_split, test_split):
            log.warning("{}", note)
        splits = list(dict.fromkeys(x for x in (valid_split, test_split) if x is not None))
        evaluated = prepare_splits(config, dataset, splits, to_tokens, context)
        eval_unit = partial(self._eval_unit, context, dataset)
        valid_k = rerank_k if config.evaluation.rerank_while_training else 0
        valid_unit, valid_reader = eval_unit(evaluated[valid_split], valid_k)
        check_score(config.regime.score_metric, valid_unit.retrieval_set, reranks=valid_k > 0)
        check_same(
            checkpoint_dir(context),
            {
                "regime.score_metric": config.regime.score_metric,
                "dataset.valid_split": valid_split,
                "evaluation.max_seconds": config.evaluation.max_seconds
                or config.dataset.max_seconds,
                "number of clips": len(valid_unit.retrieval_set.clips),
            },
            context.gangs.root.device,
        )
        trainer = create_trainer(context, unit, reader, valid_unit, valid_reader)
        stop = StopRequest(context.gangs)
        resolve = context.resolver.resolve
        checkpoints = resolve(CheckpointManager)
        unchanged = Unchanged(resolve(LRScheduler), resolve(Optimizer))

        def goes_on() -> None:
            if self._record is not None:
                self._record.replace()

        def before_step() -> None:
            unchanged.check()
            goes_on()
            if stop.agreed():
                save_and_stop(trainer, checkpoints, context.gangs)

        reader.before_step = before_step
        return TrainAndEvaluate(
            trainer,
            stop,
            criterion,
            parallel_facade(context),
            checkpoints,
            checkpoint_dir(context),
            {split: eval_unit(evaluated[split], rerank_k) for split in splits},
            dataset,
            reader.num_examples,
            context.output_dir,
            config,
            context.gangs,
            goes_on,
        )

    def _eval_unit(
        self, context: RecipeContext, dataset: AudioTextDataset, split: PreparedSplit, rerank_k: int
    ) -> tuple[RetrievalEvalUnit, ClipReader]:
        config = self._config(context)
        options = config.evaluation
        seconds = options.max_seconds or config.dataset.max_seconds
        reader = ClipReader(
            dataset,
            split.retrieval_set.clips,
            options.batch_size,
            seconds,
            config.dataset.num_workers,
        )
        unit = RetrievalEvalUnit(
            trained_module(context),
            split.retrieval_set,
            split.captions,
            reader.num_batches,
            rerank_k=rerank_k,
            batch_size=options.batch_size,
            device=context.gangs.root.device,
            unreadable=split.unreadable,
        )
        return unit, reader

    def _config(self, context: RecipeContext) -> RetrievalRecipeConfig:
        return config_as(context, RetrievalRecipeConfig)


class PreparedSplit(NamedTuple):
    """A split that a run evaluates.

    Attributes:
        retrieval_set: its clips that can be decoded, with their captions.
        captions: the captions, tokenised.
        unreadable: how many clips were left out.
    """

    retrieval_set: RetrievalSet
    captions: CaptionBatches
    unreadable: int


def prepare_splits(
    config: RetrievalRecipeConfig,
    dataset: AudioTextDataset,
    splits: Sequence[str],
    to_tokens: Tokenize,
    context: RecipeContext,
) -> dict[str, PreparedSplit]:
    """Look at everything of a run's evaluations that may be wrong.

    Raises:
        InputError: for a split that is not there, a caption without a word, or too many clips that
            cannot be decoded.
    """
    prepared = {}
    size = config.evaluation.batch_size
    for split in splits:
        dataset.clips(split)  # a wrong name is told before clips are decoded
    bad = left_out(dataset, splits, config, context.output_dir, context.gangs.root.device)
    for split in splits:
        retrieval_set = dataset.retrieval_set(split, without=bad[split])
        check_enough(dataset, split, retrieval_set.clips)
        try:
            captions = distinct_captions(*to_tokens(retrieval_set.captions), size)
        except InputError as ex:
            raise InputError(f"{dataset.name} split {split!r}: {ex}") from ex
        prepared[split] = PreparedSplit(retrieval_set, captions, len(bad[split]))
    return prepared


def make_tokenizer(
    section: CaptionTokenizerSection, captions: Iterable[str]
) -> PreTrainedTokenizerFast:
    """The tokenizer of that name, or one trained on the captions."""
    if section.name is not None:
        return load_tokenizer(section.name)
    return train_wordpiece(list(captions), section.vocab_size)


def check_score(metric: str | None, retrieval_set: RetrievalSet, *, reranks: bool) -> None:
    """Refuse a score that no validation reports, over which the first one would fall.

    Raises:
        RecipeError: naming the key and what there is.
    """
    names = reported(retrieval_set, reranks=reranks)
    if metric is None or metric in names:
        return
    if metric in reported(retrieval_set, reranks=True):
        raise RecipeError(
            f"`regime.score_metric` is {metric}, but validations do not re-rank; set "
            "`evaluation.rerank_while_training=true`, with `evaluation.rerank_k` above 0 and a "
            "criterion that trains the matching head."
        )
    near = get_close_matches(metric, sorted(names))
    raise RecipeError(
        f"`regime.score_metric` is {metric}, which no validation reports; choose a figure of "
        f"metrics/valid.jsonl, such as {' or '.join(near or ['r_sum'])}."
    )


def check_text(
    config: RetrievalRecipeConfig,
    tokenizer: PreTrainedTokenizerFast,
    model: Module,
    dataset: AudioTextDataset,
) -> None:
    """Refuse a tokenizer that does not fit the text encoder or the captions, and drop captions that
    it leaves nothing of, see :mod:`atr_moco_plugin.text.checks`."""
    section = config.tokenizer
    check_tokenizer(
        tokenizer,
        model.text.encoder,
        section.max_tokens,
        tokens_key="tokenizer.max_tokens",
        vocabulary_key="model.config_overrides.text.config.vocab_size",
    )
    splits = [config.dataset.train_split, config.dataset.valid_split]
    if config.evaluation.test_split is not None:
        splits.append(config.evaluation.test_split)
    for note in check_captions(
        tokenizer, dataset, splits, section.max_tokens, allow_unknown=section.allow_unknown
    ):
        log.info("{}", note)


def fit_queue(criterion: Any, num_examples: int) -> None:
    """A queue longer than an epoch holds every item more than once: say so, and let one that grows
    not grow so far."""
    if isinstance(criterion, MocoAtc):
        criterion.limit_growth(num_examples)
    size = max((queue.size for queue in criterion.queues.values()), default=0)
    if size > num_examples:
        log.warning(
            "The queue has {:,} rows, but an epoch has {:,} pairs: it will hold stale copies of "
            "the batch's own items. Consider a smaller `criterion.config.queue_size`.",
            size, num_examples,
        )  # fmt: skip


def train_reader(
    config: RetrievalRecipeConfig,
    dataset: AudioTextDataset,
    to_tokens: Tokenize,
    gangs: Gangs,
    skipped: SkippedClips,
) -> PairReader:
    """Shuffled training batches of this rank, which notes the clips that it skips."""
    section: RetrievalDatasetSection = config.dataset
    loader = PairLoader(
        dataset,
        section.train_split,
        to_tokens,
        section.batch_size,
        max_seconds=section.max_seconds,
        shuffle=True,
        seed=config.common.seed,
        rank=gangs.dp.rank,
        world_size=gangs.dp.size,
        drop_last=True,
        num_workers=section.num_workers,
        prefetch=section.prefetch,
        captions=section.captions,
        max_bad=section.max_bad_clips,
        pin_memory=gangs.root.device.type == "cuda",
        augment=section.augment,
        on_bad=skipped,
    )
    accumulate = config.trainer.grad_accumulation.num_batches
    if accumulate > len(loader):
        raise RecipeError(
            f"`trainer.grad_accumulation.num_batches` is {accumulate}, but an epoch of "
            f"`{section.train_split}` has {len(loader)} batches ({loader.num_examples:,} pairs in "
            f"batches of {section.batch_size} on {gangs.dp.size} process(es)), which fill no step: "
            "lower it or `dataset.batch_size`."
        )
    return PairReader(loader, accumulate, gangs.root.rank)


def make_hooks(
    sections: Mapping[str, object], criterion: Any, context: RecipeContext
) -> dict[str, Any]:
    """Hooks on the queues, on rank 0 alone, since the queues are the same on every rank.

    Raises:
        InputError: for an unknown hook or option.
    """
    if context.gangs.root.rank != 0 or not criterion.queues:
        return {}
    hooks = {}
    for name, options in sections.items():
        path: Path = context.output_dir / f"{name}.jsonl"
        hook = load("hooks", name)
        try:
            # Not the call itself, whose own errors are bugs of the hook.
            inspect.signature(hook).bind(criterion.queues, path, **(options or {}))
        except TypeError as ex:
            raise InputError(f"`hooks.{name}` is not valid: {ex}.") from ex
        hooks[name] = hook(criterion.queues, path, **(options or {}))
    return hooks
