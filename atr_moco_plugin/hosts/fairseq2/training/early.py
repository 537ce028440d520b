"""What a configuration and the captions say already: refused or warned of before clips are decoded,
encoded or embedded, which may take hours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq2.gang import Gangs
from fairseq2.logging import log

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.plan import num_batches
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.score_metric import check_score, splits_in_two_roles
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.runs.scores import check_same
from atr_moco_plugin.hosts.fairseq2.runs.settings import VOCABULARY, check_settings
from atr_moco_plugin.hosts.fairseq2.training.hooks import check_hook_options


def check_early(
    config: RetrievalRecipeConfig,
    dataset: AudioTextDataset,
    settings: Mapping[str, Any],
    checkpoints: Path,
    gangs: Gangs,
) -> None:
    """Refuse what a run would refuse later, and warn of splits and scores that say little.

    Args:
        config: the recipe's.
        dataset: the data set.
        settings: of :func:`~atr_moco_plugin.hosts.fairseq2.runs.settings.training_settings`.
        checkpoints: where the run saves.
        gangs: the processes, which all call this.

    Raises:
        InputError: for a step that no epoch fills, a score that no validation reports, unknown
            hooks or options of them, and other settings or scores than those of the checkpoints
            that are there.
    """
    _check_accumulation(config, dataset, gangs.dp.size)
    section, regime = config.dataset, config.regime
    test_split = config.evaluation.test_split
    for note in splits_in_two_roles(section.train_split, section.valid_split, test_split):
        log.warning("{}", note)
    check_score(
        regime.score_metric,
        one_clip_each=dataset.relevance_mode == "clip",
        reranks=validation_candidates(config) > 0,
        to_rerank="set `evaluation.rerank_while_training=true`, with `evaluation.rerank_k` "
        "above 0 and a criterion that trains the matching head",
    )
    if regime.score_metric is None:
        log.warning("No checkpoint will have a validation score, so none is evaluated in the end; "
                    "set `regime.score_metric`.")  # fmt: skip
    for name, options in config.hooks.items():
        check_hook_options(name, options or {})
    # Other data trains another vocabulary, and is told by its own name once a checkpoint is loaded.
    known = {name: value for name, value in settings.items() if name != VOCABULARY}
    check_settings(checkpoints, known, gangs.root.device, keep=False)
    check_same(checkpoints, score_dependencies(config), gangs.root.device, keep=False)


def validation_candidates(config: RetrievalRecipeConfig) -> int:
    """How many candidates a validation re-ranks: none where the head is not trained."""
    options = config.evaluation
    asked = options.rerank_while_training and config.criterion_section.matches
    return options.rerank_k if asked else 0


def score_dependencies(config: RetrievalRecipeConfig) -> dict[str, Any]:
    """What a validation score depends on, by the keys of the recipe."""
    metric = config.regime.score_metric
    scored = {
        "regime.score_metric": metric,
        "dataset.valid_split": config.dataset.valid_split,
        "evaluation.max_seconds": config.evaluated_seconds,
    }
    if metric and metric.startswith("reranked_"):
        scored["evaluation.rerank_k"] = validation_candidates(config)
    return scored


def _check_accumulation(
    config: RetrievalRecipeConfig, dataset: AudioTextDataset, processes: int
) -> None:
    section, accumulate = config.dataset, config.trainer.grad_accumulation.num_batches
    clips = dataset.clips(section.train_split)
    pairs = section.captions_per_clip * (
        sum(len(clip.captions) for clip in clips) if section.captions == "all" else len(clips)
    )
    batches = num_batches(pairs, section.batch_size, processes, drop_last=True)
    # Without any batch the loader says what is wrong.
    if accumulate > max(batches, 1):
        raise InputError(
            f"`trainer.grad_accumulation.num_batches` is {accumulate}, but an epoch of "
            f"`{section.train_split}` has {batches} batches ({pairs:,} pairs in batches of "
            f"{section.batch_size} on {processes} process(es)), which fill no step: lower it or "
            "`dataset.batch_size`."
        )
