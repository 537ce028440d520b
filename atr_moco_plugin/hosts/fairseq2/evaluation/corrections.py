"""The splits behind corrections of cosines: a bank of training items, and a split to choose on."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from fairseq2.device import Device
from fairseq2.logging import log
from torch import Tensor

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.readable import named
from atr_moco_plugin.data.opening.duplicates import same_files
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.corrected import choose, correct, summary
from atr_moco_plugin.evaluation.encode import Advance
from atr_moco_plugin.evaluation.gains import gains
from atr_moco_plugin.evaluation.intervals import of_every_relevance, system_intervals
from atr_moco_plugin.evaluation.queries import QueryFigures, SplitQueries, Systems
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, DUPLICATES, Direction, relevances
from atr_moco_plugin.evaluation.rescoring import INDUCTIVE, Pair
from atr_moco_plugin.evaluation.retrieval import OnScores
from atr_moco_plugin.evaluation.split import Progress, Scores, Split
from atr_moco_plugin.evaluation.unreadable import find_unreadable
from atr_moco_plugin.hosts.fairseq2.config.evaluate import EvaluateRecipeConfig

BANK_SEED = 0
"""Draws the clips of a bank that is smaller than its split."""

Prepare = Callable[[str, Collection[str]], Split]
"""Tokenises a split, without the clips of some keys."""

EncodedSplits = tuple[Pair, Pair | None]
"""The split that parameters are chosen on, and the bank."""


@dataclass(frozen=True)
class CorrectionSplits:
    """What corrections are made of, beside the split that they correct.

    Attributes:
        names: the corrections.
        chosen_on: where their parameters are chosen.
        bank: drawn from the training split; None where all corrections are transductive.
    """

    names: Sequence[str]
    chosen_on: Split
    bank: Split | None


def correction_splits(config: EvaluateRecipeConfig) -> list[str]:
    """Names of the splits that the corrections of a configuration read."""
    if not config.correct:
        return []
    assert config.correct_bank is not None and config.correct_chosen_on is not None
    banks = [config.correct_bank] if set(config.correct) & INDUCTIVE.keys() else []
    return [config.correct_chosen_on, *banks]


def prepare_corrections(
    config: EvaluateRecipeConfig, dataset: AudioTextDataset, prepare: Prepare, device: Device
) -> CorrectionSplits | None:
    """Draw the bank, and leave out of it and of the other split what cannot be decoded, and the
    recordings that the evaluated split has too, or for the bank the other one.

    Args:
        config: the recipe's configuration.
        dataset: has the splits.
        prepare: tokenises a split.
        device: where the process group exchanges tensors.

    Returns:
        None without corrections.

    Raises:
        InputError: for a split that is not there, or that has fewer than two clips left.
    """
    names = correction_splits(config)
    if not names:
        return None
    splits = []
    others = [config.split]
    for name, most in zip(names, (None, config.correct_bank_size), strict=False):
        shared = _shared(dataset, name, others)
        if shared:
            log.warning(
                "{} split {!r}: {:,} clips are recordings of {} too and take no part in the "
                "corrections.",
                dataset.name, name, len(shared), " or ".join(map(repr, others)),
            )  # fmt: skip
        others.append(name)
        without = shared | _left_out(dataset, name, shared, most)
        section = config.dataset
        broken = find_unreadable(
            dataset, name, section.max_seconds or 0.0, section.num_workers, device, without
        )
        if broken:
            log.warning("{} split {!r}: {:,} clips cannot be decoded and take no part in the "
                        "corrections: {}.",
                        dataset.name, name, len(broken), named(broken))  # fmt: skip
        if len(dataset.clips(name)) - len(without) - len(broken) < 2:
            raise InputError(
                f"{dataset.name} split {name!r} has fewer than two clips of its own that can be "
                "decoded, too few for a correction; give another split, or leave `correct` out."
            )
        splits.append(prepare(name, without | broken.keys()))
    bank = splits[1] if len(splits) > 1 else None
    return CorrectionSplits(list(dict.fromkeys(config.correct)), splits[0], bank)


def encode_corrections(
    score: Callable[..., Scores], splits: CorrectionSplits, progress: Progress
) -> EncodedSplits:
    """Encode both splits, shared out over all processes.

    Args:
        score: :func:`~atr_moco_plugin.evaluation.split.score_split` of the model.
        splits: of :func:`prepare_corrections`.
        progress: shows how far each stage is.

    Returns:
        The split to choose on, and the bank.
    """
    chosen_on, bank = (
        None if split is None else score(split, rerank_k=[], progress=_of(split.name, progress))
        for split in (splits.chosen_on, splits.bank)
    )
    assert chosen_on is not None
    return pair(chosen_on), None if bank is None else pair(bank)


class CorrectedFigures(NamedTuple):
    """What corrections make of a split.

    Attributes:
        figures: for ``corrections`` in ``retrieval.json``.
        queries: what each query got, now from the inductive ones too. What a transductive one
            gave is of another task, and is not kept beside the others.
    """

    figures: dict[str, Any]
    queries: SplitQueries


def corrected_figures(
    splits: CorrectionSplits,
    encoded: EncodedSplits,
    scores: Scores,
    split: Split,
    queries: SplitQueries,
    on_scores: OnScores | None = None,
) -> CorrectedFigures:
    """Choose the parameters of each correction, and evaluate the split with it.

    Args:
        splits: what the corrections are made of.
        encoded: of :func:`encode_corrections`.
        scores: the split that is evaluated.
        split: the same.
        queries: what each query got without corrections.
        on_scores: called with each block of scores of the inductive corrections.
    """
    valid, bank = encoded
    device = scores.text.distinct.device
    relevance = relevances(splits.chosen_on.retrieval_set, device)[""]
    choices = choose(splits.names, bank, valid, relevance)
    inductive = None if on_scores is None else _inductive(on_scores)
    corrected = correct(
        choices, bank, pair(scores), relevances(split.retrieval_set, device), inductive
    )
    figures: dict[str, Any] = {"chosen_on": _described(splits.chosen_on), "bank": None}
    if splits.bank is not None:
        figures["bank"] = {**_described(splits.bank), "seed": BANK_SEED}
    every = _with_systems(queries, corrected.systems)
    figures |= summary(choices, corrected)
    intervals = system_intervals(replace(queries, systems=corrected.systems))
    figures["intervals"] = {name: of_every_relevance(intervals, name) for name in choices}
    figures["gains"] = gains(every, list(choices))
    inductive_systems: dict[Direction, dict[str, QueryFigures]] = {
        way: {name: found for name, found in by_name.items() if _is_inductive(name)}
        for way, by_name in corrected.systems.items()
    }
    return CorrectedFigures(figures, _with_systems(queries, inductive_systems))


def _with_systems(queries: SplitQueries, systems: Systems) -> SplitQueries:
    every = {way: {**queries.systems[way], **systems[way]} for way in DIRECTIONS}
    return replace(queries, systems=every)


def _described(split: Split) -> dict[str, Any]:
    retrieval_set = split.retrieval_set
    return {
        "dataset": split.dataset.name,
        "split": split.name,
        "clips": len(retrieval_set.clips),
        "of_clips": len(split.dataset.clips(split.name)),
        "captions": len(split.captions.rows.unique()),
    }


def _is_inductive(system: str) -> bool:
    return system.removesuffix(DUPLICATES) in INDUCTIVE


def _inductive(on_scores: OnScores) -> OnScores:
    def take(
        direction: Direction, system: str, start: int, scores: Tensor, relevant: Tensor
    ) -> None:
        if _is_inductive(system):
            on_scores(direction, system, start, scores, relevant)

    return take


def pair(scores: Scores) -> Pair:
    """The two sides of a split that was encoded."""
    return Pair(scores.audio, scores.text)


def _of(split: str, progress: Progress) -> Progress:
    def named_progress(name: str, total: int) -> AbstractContextManager[Advance]:
        return progress(f"{name} of {split}", total)

    return named_progress


def _shared(dataset: AudioTextDataset, name: str, others: Sequence[str]) -> set[str]:
    """Keys of the clips of a split whose recordings are in other splits too, where the data set
    allows that."""
    clips = [clip for split in (name, *others) for clip in dataset.clips(split)]
    files = [clip for clip in clips if isinstance(clip.source, (str, os.PathLike, Segment))]
    own = {clip.key for clip in dataset.clips(name)}
    shared: set[str] = set()
    for group in same_files([clip.source for clip in files]):
        keys = {files[at].key for at in group}
        if not keys <= own:
            shared |= keys & own
    return shared


def _left_out(
    dataset: AudioTextDataset, name: str, shared: Container[str], most: int | None
) -> set[str]:
    """Keys of the clips beyond the size of a bank, drawn at random."""
    clips = [clip for clip in dataset.clips(name) if clip.key not in shared]
    if most is None or len(clips) <= most:
        return set()
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(BANK_SEED))
    return {clips[i].key for i in order[most:].tolist()}
