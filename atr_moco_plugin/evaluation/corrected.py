"""Figures with corrections: parameters are chosen on one split, and another one is evaluated."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.hubness import Occurrences
from atr_moco_plugin.evaluation.metrics import rank_block
from atr_moco_plugin.evaluation.queries import Systems
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, Direction, Relevance
from atr_moco_plugin.evaluation.rescoring import (
    INDUCTIVE,
    TRANSDUCTIVE,
    Pair,
    Parameters,
    Rescore,
    bounded,
    rescorings,
    tried,
)
from atr_moco_plugin.evaluation.retrieval import OnScores, figures_of, rank_systems

CHOSEN_BY = "map10"
"""The figure that chooses parameters: it moves with every rank up to 10, where R@1 of a small split
moves in steps."""


class Choice(NamedTuple):
    """Parameters of a correction in one direction.

    Attributes:
        parameters: the chosen ones.
        figure: mAP@10 in percent that they gave on the split they were chosen on.
        plain: that of the cosines there.
    """

    parameters: Parameters
    figure: float
    plain: float


Choices = Mapping[str, Mapping[Direction, Choice]]
"""By the name of the correction and the direction."""


@torch.no_grad()
def choose(
    names: Sequence[str], bank: Pair | None, split: Pair, relevance: Relevance
) -> dict[str, dict[Direction, Choice]]:
    """Choose the parameters of corrections in each direction, by mAP@10.

    Args:
        names: of :data:`~atr_moco_plugin.evaluation.rescoring.INDUCTIVE` or
            :data:`~atr_moco_plugin.evaluation.rescoring.TRANSDUCTIVE`.
        bank: what the inductive ones are made of; None where all are transductive.
        split: what they are chosen on: never the one that is evaluated, nor the bank's.
        relevance: of its clips and captions, the strict one.

    Returns:
        Of parameters with equal figures the first that were tried.
    """
    cosines = Cosines(*split)
    chosen: dict[str, dict[Direction, Choice]] = {name: {} for name in names}
    for direction in DIRECTIONS:
        grids = {name: tried(name, len(_bank(name, bank, split, direction))) for name in names}
        systems: list[Rescore] = [lambda x: x]
        for name, grid in grids.items():
            queries = _bank(name, bank, split, direction)
            with warnings.catch_warnings():  # what is chosen is made again, and then says so
                warnings.filterwarnings("ignore", "Sinkhorn with beta")
                systems += rescorings(name, grid, queries, split.items(direction))
        figures = iter(_precisions(cosines, direction, systems, relevance))
        plain = next(figures)
        for name, grid in grids.items():
            found = [Choice(parameters, next(figures), plain) for parameters in grid]
            chosen[name][direction] = max(found, key=lambda choice: choice.figure)
    return chosen


def _precisions(
    cosines: Cosines, direction: Direction, systems: Sequence[Rescore], relevance: Relevance
) -> list[float]:
    """mAP@10 of each system in percent."""
    totals, queries = [0.0] * len(systems), 0
    for start, block in cosines.blocks(direction):
        relevant = relevance.block(direction, start, start + len(block)).to(block.device)
        queries += int(relevant.any(dim=1).sum())
        for i, system in enumerate(systems):
            found = rank_block(system(block).double(), relevant)
            totals[i] += float(found.precision.sum())
    return [100 * total / queries for total in totals]


class Corrected(NamedTuple):
    """What corrections make of a split.

    Attributes:
        systems: what each query got, by direction and ``NAME`` or ``NAME_dup``.
        figures: of each correction, those of
            :class:`~atr_moco_plugin.evaluation.metrics.RetrievalMetrics` with every suffix.
        hubness: of each correction, both directions.
        used: parameters of each correction, whose ``k`` a small bank bounds.
    """

    systems: Systems
    figures: dict[str, dict[str, float]]
    hubness: dict[str, dict[Direction, Any]]
    used: dict[str, dict[Direction, Parameters]]


@torch.no_grad()
def correct(
    choices: Choices,
    bank: Pair | None,
    split: Pair,
    relevances: Mapping[str, Relevance],
    on_scores: OnScores | None = None,
) -> Corrected:
    """Evaluate a split with each correction.

    Args:
        choices: of :func:`choose`, on another split.
        bank: the one they were chosen with.
        split: what is evaluated.
        relevances: of its clips and captions, by the suffix of the figures.
        on_scores: called with each block of scores of every correction.
    """
    hubs = {name: Occurrences() for name in choices}
    chosen = {way: dict(_chosen(choices, bank, split, way)) for way in DIRECTIONS}

    def score(direction: Direction, start: int, block: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, rescore in chosen[direction].items():
            scores = rescore(block)
            hubs[name].update(direction, scores)
            yield name, scores

    systems = rank_systems(Cosines(*split), relevances, score, on_scores)
    figures = {name: figures_of(systems, name, relevances) for name in choices}
    used = {
        name: {
            way: bounded(choice.parameters, len(_bank(name, bank, split, way)))
            for way, choice in ways.items()
        }
        for name, ways in choices.items()
    }
    return Corrected(systems, figures, {name: hubs[name].compute() for name in choices}, used)


def summary(choices: Choices, corrected: Corrected) -> dict[str, Any]:
    """For ``corrections`` in ``retrieval.json``: what was chosen, and the figures of inductive and
    transductive corrections apart."""
    return {
        "chosen_by": CHOSEN_BY,
        "chosen": {
            name: {
                way: {
                    **corrected.used[name][way],
                    **_chosen_otherwise(choice.parameters, corrected.used[name][way]),
                    f"valid_{CHOSEN_BY}": choice.figure,
                    f"valid_{CHOSEN_BY}_plain": choice.plain,
                }
                for way, choice in ways.items()
            }
            for name, ways in choices.items()
        },
        "inductive": {k: v for k, v in corrected.figures.items() if k in INDUCTIVE},
        "transductive": {k: v for k, v in corrected.figures.items() if k in TRANSDUCTIVE},
        "hubness": corrected.hubness,
    }


def _chosen_otherwise(chosen: Parameters, used: Parameters) -> dict[str, float]:
    """What was chosen, and is not used as it is."""
    return {f"chosen_{key}": value for key, value in chosen.items() if used[key] != value}


def _chosen(
    choices: Choices, bank: Pair | None, split: Pair, direction: Direction
) -> Iterator[tuple[str, Rescore]]:
    for name, ways in choices.items():
        queries = _bank(name, bank, split, direction)
        parameters = [ways[direction].parameters]
        for rescore in rescorings(name, parameters, queries, split.items(direction)):
            yield name, rescore


def _bank(name: str, bank: Pair | None, split: Pair, direction: Direction) -> Tensor:
    """What a correction takes for the queries of a direction."""
    if name in TRANSDUCTIVE:
        return split.queries(direction)
    if bank is None:
        raise ValueError(f"{name} is made of a bank, and none was given.")
    return bank.bank(direction)
