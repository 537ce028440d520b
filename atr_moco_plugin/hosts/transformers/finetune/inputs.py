"""What a run reads: the tokenizer, training batches, and the splits that it evaluates."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.data.loading.skipped import SkippedClips
from atr_moco_plugin.data.loading.training import first_pairs, training_loader
from atr_moco_plugin.embedding_cache.run import RunCaches, run_caches
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.split import Split, prepare_split
from atr_moco_plugin.evaluation.unreadable import left_out
from atr_moco_plugin.finetuning.checks import evaluated_splits, run_tokenizer
from atr_moco_plugin.finetuning.prepare import Prepared, settled
from atr_moco_plugin.hosts.transformers.finetune.batches import StepBatches, TrainingPairs
from atr_moco_plugin.hosts.transformers.finetune.clap import clap_features, clap_inputs
from atr_moco_plugin.io.json_files import object_if_whole
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.plugins import load
from atr_moco_plugin.retriever.bundle import FEATURE_EXTRACTOR, TOKENIZER
from atr_moco_plugin.text.tokenizer import tokenize

CLIPS_FILE = "evaluation_clips.json"
"""In the output folder, as the recipes name it: clips that evaluations leave out."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInputs:
    """What a run reads.

    Attributes:
        tokenizer: of the captions.
        train_set: what ``Trainer`` is told to train on.
        num_pairs: pairs in an epoch.
        batches: the training batches.
        splits: the splits that are evaluated, by their names.
        described: what a bundle has to know besides the model.
        processors: tokenizer and feature extractor, by their folders in a bundle.
    """

    tokenizer: Any
    train_set: TrainingPairs
    num_pairs: int
    batches: StepBatches
    splits: dict[str, Split]
    described: dict[str, Any]
    processors: dict[str, Any]


def make_inputs(prepared: Prepared) -> RunInputs:
    """Make and check everything that a run reads, before its first step.

    Raises:
        InputError: for a split, captions, a tokenizer or clips that cannot be used.
    """
    config, dataset, out = prepared.config, prepared.dataset, prepared.output_dir
    section, extractor = config.dataset, prepared.started.feature_extractor
    evaluated = evaluated_splits(config)
    tokenizer = run_tokenizer(prepared, note=_LOG.info)
    max_tokens = settled(config.tokenizer.max_tokens)
    tokenizer.save_pretrained(out / "tokenizer")
    to_tokens = partial(tokenize, tokenizer, max_tokens=max_tokens)
    caches = _caches(prepared, to_tokens, evaluated)
    outputs = None if caches is None else caches.outputs
    to_inputs = None if extractor is None else clap_inputs(extractor)
    loader = training_loader(
        dataset,
        to_tokens,
        section,
        batch_size=settled(section.batch_size),
        max_seconds=settled(section.max_seconds),
        seed=config.common.seed,
        pin_memory=torch.cuda.is_available(),
        outputs=outputs,
        on_bad=SkippedClips(out, 0),
        note=_LOG.info,
    )
    unreadable = left_out(
        dataset,
        evaluated,
        object_if_whole(out / CLIPS_FILE),
        out / CLIPS_FILE,
        seconds=prepared.evaluated_seconds,
        decoder=section.decoder,
        num_workers=section.num_workers,
        most=section.max_bad_clips,
        device=torch.device("cpu"),
        note=_LOG.info,
        warn=warnings.warn,
        cached=None if caches is None else caches.unreadable(dataset),
    )
    splits = {
        name: prepare_split(
            dataset,
            name,
            to_tokens,
            batch_size=config.evaluation.batch_size,
            max_seconds=prepared.evaluated_seconds,
            num_workers=section.num_workers,
            without=unreadable[name],
            audio_inputs=None if extractor is None else clap_features(extractor),
            clip_inputs=None if caches is None else caches.clip_inputs(name),
        )
        for name in evaluated
    }
    steps = settled(config.regime.num_steps)
    accumulate = config.trainer.grad_accumulation.num_batches
    pairs = loader.num_examples
    return RunInputs(
        tokenizer=tokenizer,
        train_set=TrainingPairs(
            dataset,
            section.train_split,
            pairs,
            partial(
                first_pairs,
                dataset,
                to_tokens,
                section,
                max_seconds=settled(section.max_seconds),
                outputs=outputs,
            ),
            to_inputs,
        ),
        num_pairs=pairs,
        batches=StepBatches(loader, steps, accumulate, to_inputs),
        splits=splits,
        described={
            "sample_rate": dataset.sample_rate,
            "window_seconds": prepared.evaluated_seconds,
            "max_tokens": max_tokens,
        },
        processors={TOKENIZER: tokenizer, FEATURE_EXTRACTOR: extractor},
    )


def check_cached_clap(prepared: Prepared) -> None:
    """Refuse a cache of a ``ClapModel``.

    Raises:
        InputError: naming the key.
    """
    if prepared.config.dataset.cache_embeddings is not None and prepared.started.clap is not None:
        raise InputError(
            "`dataset.cache_embeddings` keeps outputs of this package's towers, but `init` is a "
            "ClapModel: leave it out."
        )


def _caches(prepared: Prepared, to_tokens: Tokenize, evaluated: list[str]) -> RunCaches | None:
    """Outputs of frozen encoders, see :mod:`atr_moco_plugin.embedding_cache`."""
    config, started = prepared.config, prepared.started
    section = config.dataset
    check_cached_clap(prepared)
    if section.cache_embeddings is not None and torch.cuda.is_available():
        started.model.to("cuda")  # where Trainer would bring it later
    return run_caches(
        started.model,
        prepared.dataset,
        to_tokens,
        section,
        max_seconds=settled(section.max_seconds),
        evaluated=evaluated,
        evaluated_seconds=prepared.evaluated_seconds,
        matches="loss_atm" in load("criteria", settled(config.criterion.name)).measures,
        batch_size=config.evaluation.batch_size,
        say=say,
    )
