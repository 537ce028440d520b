"""Embeddings that lose their directions, and a matching head that learns nothing: said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.criterion.atm import prior_entropy
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank.spectrum import singular_values, spectrum_measures

AFTER = 1_000
"""Steps after which the embeddings of any run have more than one direction."""

ROWS = 256
"""Newest rows of each queue that are looked at: a spectrum of 256 takes milliseconds."""

ENOUGH_ROWS = 32
"""Fewer rows say nothing about a space."""

LOW_RANK = 2.0
"""A RankMe below this is a point or a line. Healthy queues have 17 to 78 (docs/rank_study.md)."""

FLAT_LOGITS = 0.1
"""Standard deviation of similarities over the temperature below which a softmax is nearly even."""

ATM_MARGIN = 0.01
"""A matching loss this close below the label prior has learned nothing yet."""


class CollapseWatch:
    """Warns of three ways in which a run that goes on learns nothing. Each is warned of once.

    * The embeddings of a modality lie on a point or a line: the RankMe of the newest rows of its
      queue, raw or centred, is near 1.
    * All similarities are nearly equal: over the temperature they differ by so little that the
      contrastive loss cannot tell a pair from any other.
    * The matching loss stays at the entropy of its labels.

    Each is judged at every report from a step on, since towers with random weights begin close to
    all three.

    Args:
        after: the step from which the matching loss is judged, such as half of a run; the queues
            are from there on, or from :data:`AFTER`.
        warn: is told.
        criterion: what is trained. One with ``num_negatives`` says how many hard negatives an item
            has, otherwise 2; one with ``matching_since``, at which step its matching loss began,
            which has half of ``after`` then.
    """

    def __init__(
        self, after: int, warn: Callable[[str], None] = warnings.warn, criterion: Any = None
    ) -> None:
        self._criterion = criterion
        self._after = min(after, AFTER)
        self._match_after = after
        self._warn = warn
        self._told: set[str] = set()

    @torch.no_grad()
    def look(
        self, step: int, queues: Mapping[str, EmbeddingQueue], measures: Mapping[str, float]
    ) -> None:
        """Judge a run at a report.

        Args:
            step: optimizer steps made.
            queues: of the criterion, empty for one that has none.
            measures: what the criterion measures, averaged since the last report; of
                ``temperature`` and ``loss_atm`` those that it has.
        """
        since = getattr(self._criterion, "matching_since", 0)
        judged = step >= max(self._match_after, since + self._match_after // 2 if since else 0)
        if judged and "loss_atm" in measures:
            self._judge_matching(step, measures["loss_atm"])
        if step < self._after:
            return
        newest = {
            name: queue.newest(min(len(queue), ROWS))
            for name, queue in queues.items()
            if len(queue) >= ENOUGH_ROWS
        }
        for name, rows in newest.items():
            self._judge_rank(step, name, rows)
        if "temperature" in measures and newest.keys() >= {"audio", "text"}:
            flat = logit_spread(newest["audio"], newest["text"], measures["temperature"])
            self._judge_similarity(step, flat)

    def _judge_rank(self, step: int, name: str, rows: Tensor) -> None:
        if f"rank of {name}" in self._told:
            return
        rank = lowest_rank(rows)
        if rank < LOW_RANK:
            self._tell(
                f"rank of {name}",
                f"The {name} embeddings have collapsed: the RankMe of the newest {len(rows)} rows "
                f"of their queue is {rank:.2f} of {min(rows.shape)} after {step} steps. Start from "
                "pretrained encoders, or try a lower learning rate, a longer warm-up of the "
                "learning rate or more pairs a batch.",
            )

    def _judge_similarity(self, step: int, spread: float) -> None:
        if spread < FLAT_LOGITS:
            self._tell(
                "similarity",
                f"All similarities are nearly equal after {step} steps: over the temperature they "
                f"differ by {spread:.3f} (standard deviation), so that the contrastive loss cannot "
                "tell a pair from any other. Try a lower temperature, or another learning rate of "
                "the projections.",
            )

    def _judge_matching(self, step: int, loss: float) -> None:
        negatives = getattr(self._criterion, "num_negatives", 2)
        prior = prior_entropy(negatives)
        if loss > prior - ATM_MARGIN:
            self._tell(
                "matching",
                f"The matching loss is {loss:.4f} after {step} steps, still at "
                f"{prior:.4f}, the entropy of its 1:{negatives} labels: the head tells matching "
                "pairs from hard negatives no better than by counting. Try a higher learning rate, "
                "more steps, or `criterion: moco_atc`.",
            )

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._warn(text)


def lowest_rank(rows: Tensor) -> float:
    """The smaller of the raw and the centred RankMe.

    Args:
        rows: ``[N, d]``, finite. Equal rows have 0, the centred rank of a point.
    """
    spectra = (singular_values(rows, center=center) for center in (False, True))
    return min(spectrum_measures(x, normalizer="max", threshold=0.01).rankme for x in spectra)


def logit_spread(audio: Tensor, text: Tensor, temperature: float) -> float:
    """Standard deviation of all similarities between two sets, over the temperature.

    Args:
        audio: ``[N, d]`` unit-norm.
        text: ``[M, d]`` unit-norm.
        temperature: tau.
    """
    return float((audio @ text.T).std()) / temperature
