"""The evaluation of a model on one split, as a run makes it again and again."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.criterion import TEMPERATURE_RANGE
from atr_moco_plugin.distributed import process_index
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.queries import SplitQueries
from atr_moco_plugin.evaluation.split import Split, score_split
from atr_moco_plugin.evaluation.split_figures import final_figures, split_figures
from atr_moco_plugin.learned_distance import learned_factor


class SplitEvaluation:
    """Evaluates retrieval on one split.

    The processes share clips, captions and pairs; the first one makes the figures, which are those
    of one process.

    Attributes:
        split: clips, captions and what counts as a hit.
        result: what the last evaluation found; empty on processes other than the first.
        queries: what each query got; None before a final evaluation, and on other processes.

    Args:
        criterion: the criterion, for its ``model``, its ``temperature``, a distance that it has
            learned and, where it has one, ``head_trained``: whether the matching head is worth
            re-ranking with.
        split: clips, captions and what counts as a hit.
        rerank_k: candidates of each query that are re-ranked; 0 for none.
        device: where the model is.
    """

    def __init__(self, criterion: Any, split: Split, rerank_k: int, device: torch.device) -> None:
        self._criterion = criterion
        self.split = split
        self._rerank_k = [rerank_k] if rerank_k else []
        self._device = device
        self._cosines: Cosines | None = None
        self.result: dict[str, Any] = {}
        self.queries: SplitQueries | None = None

    @property
    def similarity(self) -> Tensor:
        """``[A, C]`` float32 in main memory: the cosines of the last evaluation.

        Raises:
            RuntimeError: when there was none.
        """
        if self._cosines is None:
            raise RuntimeError("There is no similarity before the first evaluation.")
        return self._cosines.matrix()

    def _reranks(self) -> list[int]:
        """Numbers of candidates to re-rank: none with a head that is not trained, which would only
        shuffle them."""
        return self._rerank_k if getattr(self._criterion, "head_trained", True) else []

    def evaluate(self, *, final: bool = False) -> None:
        """Evaluate with all processes; the model is in eval mode.

        Args:
            final: make intervals and keep what each query got, which no validation needs.

        Raises:
            InputError: on every process, when one of them cannot read a clip.
        """
        rerank_k = self._reranks()
        if final and rerank_k != self._rerank_k and process_index() == 0:
            warnings.warn(
                f"{self.split.name} is not re-ranked: the matching loss had not begun in this "
                "checkpoint, so that its head is untrained.",
                stacklevel=2,
            )
        scores = score_split(
            self._criterion.model,
            self.split,
            self._device,
            rerank_k,
            factor=learned_factor(self._criterion),
        )
        self._cosines = scores.cosines
        if process_index() == 0:
            temperature = self._criterion.temperature.clamp(*TEMPERATURE_RANGE).item()
            if final:
                self.result, self.queries = final_figures(scores, self.split, rerank_k, temperature)
            else:
                self.result = split_figures(scores, self.split, rerank_k, temperature)

    def figures(self) -> dict[str, float]:
        """The figures of the last evaluation by their names, those of
        :func:`~atr_moco_plugin.evaluation.split_figures.figure_names`. While the head is untrained
        nothing is re-ranked, and the re-ranked figures are those of the order that stays."""
        values: dict[str, float] = dict(self.result["dual"])
        again = self.result.get("reranked", self.result["dual"] if self._rerank_k else {})
        for name, value in again.items():
            values[f"reranked_{name}"] = value
        for name, source in self.result["rank"]["sources"].items():
            values[f"{name}_rankme"] = source["raw"]["rankme"]
        return values
