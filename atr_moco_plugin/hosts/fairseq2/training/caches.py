"""The caches of frozen encoders that a run of this host reads, see
:mod:`atr_moco_plugin.embedding_cache`."""

from __future__ import annotations

from functools import partial
from typing import Any

from fairseq2.gang import Gangs
from fairseq2.logging import log

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.distributed import gather_values
from atr_moco_plugin.embedding_cache.build import Ranks, raise_problem
from atr_moco_plugin.embedding_cache.run import RunCaches, run_caches
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.processes import from_first


def open_caches_of_run(
    config: RetrievalRecipeConfig,
    model: Any,
    dataset: AudioTextDataset,
    to_tokens: Tokenize,
    gangs: Gangs,
) -> RunCaches | None:
    """:func:`~atr_moco_plugin.embedding_cache.run.run_caches` of a recipe, by all processes."""
    splits = (config.dataset.valid_split, config.evaluation.test_split)
    device = gangs.root.device

    def agree(problem: str | None) -> None:
        found = (x for x in gather_values(problem, device) if x is not None)
        raise_problem(next(found, None))

    return run_caches(
        model,
        dataset,
        to_tokens,
        config.dataset,
        max_seconds=config.dataset.max_seconds,
        evaluated=dict.fromkeys(x for x in splits if x is not None),
        evaluated_seconds=config.evaluated_seconds,
        matches=config.criterion_section.matches,
        batch_size=config.evaluation.batch_size,
        ranks=Ranks(gangs.root.rank, gangs.root.size, partial(from_first, device=device), agree),
        say=partial(log.info, "{}"),
    )
