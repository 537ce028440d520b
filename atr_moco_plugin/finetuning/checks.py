"""What training refuses before its first step, for a plan that is shown without training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from atr_moco_plugin.criterion.positives import check_shared_clips
from atr_moco_plugin.data.loading.training import training_loader
from atr_moco_plugin.embedding_cache.run import check_cache
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.score_metric import check_score, splits_in_two_roles
from atr_moco_plugin.evaluation.split import prepare_split
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.prepare import Prepared, settled
from atr_moco_plugin.finetuning.step_sections import RegimeSection
from atr_moco_plugin.finetuning.steps import matches
from atr_moco_plugin.teaching import check_teachers
from atr_moco_plugin.text.caption_tokenizer import caption_tokenizer
from atr_moco_plugin.text.tokenizer import tokenize


def check_run(
    prepared: Prepared,
    criterion: Any,
    *,
    tell: Callable[[str], object],
    world_size: int = 1,
    reranks: bool = False,
) -> None:
    """Make what a run reads, as far as that needs no audio and writes nothing.

    Args:
        prepared: the run.
        criterion: around its model, as the loop builds it.
        tell: called with what training warns of.
        world_size: processes that train together.
        reranks: whether validations re-rank.

    Raises:
        InputError: for a split, captions, a tokenizer or options that training would refuse.
    """
    config, dataset = prepared.config, prepared.dataset
    section, regime = config.dataset, config.regime
    evaluated = evaluated_splits(config)
    for split in (section.train_split, *evaluated):
        dataset.clips(split)
    for note in doubtful_splits(config):
        tell(note)
    check_intervals(regime, config.loop)
    check_teachers(criterion, dataset, section.train_split, folder=prepared.output_dir)
    check_shared_clips(criterion, section.captions_per_clip, mixes=section.mix is not None)
    tokenizer = run_tokenizer(prepared, note=str)
    to_tokens = partial(tokenize, tokenizer, max_tokens=settled(config.tokenizer.max_tokens))
    if section.cache_embeddings is not None:
        matching = matches(settled(config.criterion.name))
        check_cache(section, prepared.started.model, matches=matching)
    loader = training_loader(
        dataset,
        to_tokens,
        replace(section, cache_embeddings=None, cache_crops=1, num_workers=0),
        batch_size=settled(section.batch_size),
        max_seconds=settled(section.max_seconds),
        seed=config.common.seed,
        world_size=world_size,
        note=str,
    )
    accumulate = config.trainer.grad_accumulation.num_batches
    if accumulate > len(loader):
        raise InputError(
            f"`trainer.grad_accumulation.num_batches` is {accumulate}, but an epoch has "
            f"{len(loader)} batches, which fill no step: lower it or `dataset.batch_size`."
        )
    splits = {
        name: prepare_split(
            dataset,
            name,
            to_tokens,
            batch_size=config.evaluation.batch_size,
            max_seconds=prepared.evaluated_seconds,
            num_workers=0,
        )
        for name in evaluated
    }
    valid = splits[section.valid_split]
    check_score(
        regime.score_metric,
        one_clip_each=valid.retrieval_set.caption_to_audio is not None,
        reranks=reranks,
    )


def evaluated_splits(config: FinetuneConfig) -> list[str]:
    """The splits that a run evaluates: to validate on, and to test on where that is another."""
    valid, test = config.dataset.valid_split, config.evaluation.test_split
    return [valid] if test in (None, valid) else [valid, str(test)]


def doubtful_splits(config: FinetuneConfig) -> Iterator[str]:
    """One sentence for each split whose figures say less than they seem to."""
    section = config.dataset
    return splits_in_two_roles(
        section.train_split, section.valid_split, config.evaluation.test_split
    )


def run_tokenizer(prepared: Prepared, *, note: Callable[[str], object]) -> Any:
    """The tokenizer of a run, checked against its model and captions.

    Args:
        prepared: the run.
        note: called with what was found, in a sentence each.

    Raises:
        InputError: for one that does not fit.
    """
    config, started = prepared.config, prepared.started
    section = config.tokenizer
    return caption_tokenizer(
        started.model.text.encoder,
        prepared.dataset,
        [config.dataset.train_split, *evaluated_splits(config)],
        name=started.tokenizer if section.name is None else section.name,
        vocab_size=section.vocab_size,
        max_tokens=settled(section.max_tokens),
        allow_unknown=section.allow_unknown,
        note=note,
        mix=config.dataset.mix,
    )


def check_intervals(regime: RegimeSection, loop: str) -> None:
    """Refuse intervals that fairseq2's loop does not take.

    Raises:
        InputError: naming the two keys.
    """
    if loop != "fairseq2":
        return
    for longer, shorter in (
        ("checkpoint_every_n_steps", "validate_every_n_steps"),
        ("validate_every_n_steps", "publish_metrics_every_n_steps"),
    ):
        many, few = getattr(regime, longer), getattr(regime, shorter)
        if many is not None and few is not None and many % few:
            raise InputError(
                f"`regime.{longer}` is {many}, which is no multiple of `regime.{shorter}`, {few}, "
                "as fairseq2 asks: set one of the two, or `loop=transformers`."
            )
