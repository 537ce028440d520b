"""What a training run reads: the tokenizer, training batches and the splits it evaluates."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairseq2.datasets import DataReader
from fairseq2.gang import Gangs
from fairseq2.logging import log
from fairseq2.recipe.error import RecipeError
from transformers import PreTrainedTokenizerFast
from typing_extensions import Self, override

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import PairBatch, Tokenize
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.loading.skipped import SkippedClips
from atr_moco_plugin.data.loading.training import training_loader
from atr_moco_plugin.embedding_cache.batch import CachedOutputs
from atr_moco_plugin.embedding_cache.run import RunCaches
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.split import Split, prepare_split
from atr_moco_plugin.hosts.fairseq2.config.init import KINDS
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors
from atr_moco_plugin.hosts.fairseq2.evaluation.clips import unreadable_clips
from atr_moco_plugin.model import RetrievalModel
from atr_moco_plugin.text.caption_tokenizer import caption_tokenizer


@dataclass
class PairReader(DataReader[PairBatch]):
    """Training batches; its state is the loader's own, which is exact.

    Attributes:
        loader: where batches come from.
        accumulate: batches an optimizer step.
        process: index of this process among all.
        before_step: called before the batches of a step are read, on every process alike.
    """

    loader: PairLoader
    accumulate: int
    process: int = 0
    before_step: Callable[[], None] = lambda: None

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> list[PairBatch]:
        self.before_step()
        try:
            with one_line_errors():
                # A step that the epoch cannot fill is dropped: every step sees as many pairs.
                batches = []
                for _ in range(self.accumulate):
                    batches.append(next(self.loader))
                return batches
        except RecipeError as ex:
            if self.process != 0:
                # fairseq2 shows the first process's log alone; the launcher stops the others.
                print(f"Process {self.process}: {ex}", file=sys.stderr)
            raise

    @override
    def reset(self) -> None:
        self.loader.reset()

    @override
    def state_dict(self) -> dict[str, object]:
        return self.loader.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.loader.load_state_dict(state_dict)

    @property
    @override
    def num_accumulate(self) -> int:
        return self.accumulate

    def run_length(self, num_steps: int | None, num_epochs: int | None) -> int | None:
        """Optimizer steps of a run from its start, which ends at whichever limit comes first.

        Args:
            num_steps: at most, or ``None``.
            num_epochs: at most, or ``None``.

        Returns:
            ``None`` without a limit.
        """
        steps_an_epoch = len(self.loader) // self.accumulate
        limits = [num_steps, None if num_epochs is None else num_epochs * steps_an_epoch]
        return min((x for x in limits if x is not None), default=None)


def train_reader(
    config: RetrievalRecipeConfig,
    dataset: AudioTextDataset,
    to_tokens: Tokenize,
    gangs: Gangs,
    output_dir: Path,
    outputs: CachedOutputs | None = None,
) -> PairReader:
    """Shuffled training batches of this process, which notes the clips that it skips.

    Raises:
        InputError: see :class:`~atr_moco_plugin.data.loading.loader.PairLoader`.
    """
    section = config.dataset
    loader = training_loader(
        dataset,
        to_tokens,
        section,
        batch_size=section.batch_size,
        max_seconds=section.max_seconds,
        seed=config.common.seed,
        process_index=gangs.dp.rank,
        world_size=gangs.dp.size,
        pin_memory=gangs.root.device.type == "cuda",
        outputs=outputs,
        on_bad=SkippedClips(output_dir, gangs.dp.rank),
        note=partial(log.info, "{}"),
    )
    return PairReader(loader, config.trainer.grad_accumulation.num_batches, gangs.root.rank)


def make_tokenizer(
    config: RetrievalRecipeConfig, dataset: AudioTextDataset, model: RetrievalModel
) -> PreTrainedTokenizerFast:
    """:func:`~atr_moco_plugin.text.caption_tokenizer.caption_tokenizer` of a recipe.

    Raises:
        InputError: for one that does not fit, and where weights would get another than their own.
    """
    section, known = config.tokenizer, getattr(model.text.encoder, "tokenizer_source", None)
    if config.init not in KINDS and section.name is None and known is None:
        raise InputError(
            f"`init` is {config.init}, a file that does not say which tokenizer its weights were "
            "trained with, and another one would give the text tower other ids: set "
            "`tokenizer.name` to that one's folder, or `init` to the run or the bundle (to go on "
            "with a run that has begun so, its own output folder)."
        )
    splits = [config.dataset.train_split, config.dataset.valid_split]
    if config.evaluation.test_split is not None:
        splits.append(config.evaluation.test_split)
    return caption_tokenizer(
        model.text.encoder,
        dataset,
        splits,
        name=section.name,
        vocab_size=section.vocab_size,
        max_tokens=section.max_tokens,
        allow_unknown=section.allow_unknown,
        note=partial(log.info, "{}"),
        mix=config.dataset.mix,
    )


def evaluated_splits(
    config: RetrievalRecipeConfig,
    dataset: AudioTextDataset,
    to_tokens: Tokenize,
    output_dir: Path,
    gangs: Gangs,
    caches: RunCaches | None = None,
) -> dict[str, Split]:
    """Prepare the splits that a run evaluates, and look at everything that may be wrong with them.

    Raises:
        InputError: for a split that is not there, a caption without a word, or too many clips that
            cannot be decoded.
    """
    section, options = config.dataset, config.evaluation
    names = (section.valid_split, options.test_split)
    splits = list(dict.fromkeys(x for x in names if x is not None))
    known = None if caches is None else caches.unreadable(dataset)
    unreadable = unreadable_clips(config, dataset, splits, output_dir, gangs.root.device, known)
    return {
        split: prepare_split(
            dataset,
            split,
            to_tokens,
            batch_size=options.batch_size,
            max_seconds=config.evaluated_seconds,
            num_workers=section.num_workers,
            without=unreadable[split],
            clip_inputs=None if caches is None else caches.clip_inputs(split),
        )
        for split in splits
    }
