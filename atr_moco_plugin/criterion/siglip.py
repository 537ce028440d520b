"""Sigmoid loss: every pair of the global batch is a question with the answer yes or no."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atr_moco_plugin.config import in_range
from atr_moco_plugin.contracts import DualEncoder
from atr_moco_plugin.criterion.config import CriterionConfig, LearnedTemperatureConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.positives import PositivesMode, positive_pairs
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tensors.float32 import cosines


@dataclass(kw_only=True)
class SiglipConfig(LearnedTemperatureConfig):
    """Sigmoid loss over all pairs of the global batch."""

    temperature: float = 0.1
    """Initial temperature, the inverse of the scale t = 10; it is learned."""

    bias: float | Literal["auto"] = "auto"
    """Initial bias b; it is learned. ``auto`` lets the logits of the first batch of all processes
    have the log-odds of a positive for their mean, see :func:`balanced_bias`. (The paper's -10 is
    for batches of 10,000 and a scale of 10.)"""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.bias != "auto":
            for problem in in_range(self, "bias", least=-100, most=100):
                yield f"{problem.rstrip('.')}, or auto."


def sigmoid_loss(
    audio: Tensor, text_columns: Tensor, positives: Tensor, temperature: Tensor, bias: Tensor
) -> Tensor:
    """``-1/B sum_ij log sigmoid(y_ij (s_ij / tau + b))`` (SigLIP, Zhai et al. 2023, eq. 2), where
    ``s_ij`` is the cosine of clip i and caption j, and ``y_ij`` is 1 for positives and else -1.

    Args:
        audio: ``[B, d]`` unit-norm audio embeddings.
        text_columns: ``[M, d]`` unit-norm text embeddings, those of all processes. The gradient
            flows through both.
        positives: ``[B, M]`` bool.
        temperature: one element, tau = 1 / t.
        bias: one element, b.

    Returns:
        Scalar float32.
    """
    with torch.autocast(audio.device.type, enabled=False):
        logits = cosines(audio, text_columns) / temperature.float() + bias.float()
        return -F.logsigmoid(torch.where(positives, logits, -logits)).sum(dim=1).mean()


def prior_log_odds(clip_ids: Tensor, caption_ids: Tensor, mode: PositivesMode) -> Tensor:
    """Logarithm of positives over negatives among all pairs of some items.

    Args:
        clip_ids: ``[N]`` int64, or ``[N, 2]`` of mixtures.
        caption_ids: of the same shape.
        mode: see :func:`~atr_moco_plugin.criterion.positive_pairs`.

    Returns:
        ``[1]`` float32, finite: no negative counts as one, no positive too.
    """
    positives = positive_pairs(clip_ids, caption_ids, clip_ids, caption_ids, mode)
    number = positives.sum().view(1).clamp(min=1)
    return number.log() - (positives.numel() - number).clamp(min=1).log()


def balanced_bias(batch: GlobalBatch, mode: PositivesMode, temperature: Tensor) -> Tensor:
    """The bias with which the mean of ``s_ij / tau + b`` is the log-odds of a positive.

    With cosines of 0 in the mean it would be those log-odds, ``-log(N - 1)`` where each of N items
    has one positive. But towers with random weights put all items of a modality into one narrow
    cone, and the cosines between two such cones are all about one number, which may be any.

    Args:
        batch: of all processes.
        mode: which items are positives.
        temperature: one element, tau.

    Returns:
        ``[1]`` float32, finite and without a gradient. A batch with embeddings that are not finite
        counts as one of cosine 0.
    """
    odds = prior_log_odds(batch.clip_ids, batch.caption_ids, mode)
    with torch.autocast(batch.a.device.type, enabled=False):
        a, u = (x.detach().float().mean(dim=0) for x in (batch.a, batch.u))
        start = odds - (a @ u) / temperature.detach().float()
    return torch.where(start.isfinite(), start, odds)


class Siglip(Atc):
    """Sigmoid loss over all pairs of the global batch (SigLIP, Zhai et al. 2023).

    It has no denominator, so that a pair is judged by itself: :func:`sigmoid_loss` has the formula.
    The temperature is learned as that of all criteria and not as the logarithm of the scale, so
    that a learning rate for it means the same here; evaluation divides by it.

    Args:
        model: see :class:`Atc`.
        config: the options.
    """

    config_class: ClassVar[type[CriterionConfig]] = SiglipConfig

    measures: ClassVar[tuple[str, ...]] = (*Atc.measures, "bias")

    config: SiglipConfig
    bias_start: Tensor

    def __init__(self, model: DualEncoder, config: SiglipConfig) -> None:
        super().__init__(model, config)
        # In two parts: the start is known with the first batch, and a parameter that FSDP2 shards
        # loses what is written into it during a forward pass; a buffer does not.
        self.bias_change = nn.Parameter(torch.zeros(1))
        self.register_buffer("bias_start", torch.zeros(1))
        self._fill_start()

    @property
    def bias(self) -> Tensor:
        """``[1]`` float32, b; infinite before the first training pass where it is ``auto``."""
        return self.bias_start + self.bias_change

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See :meth:`Atc.reset_parameters`."""
        super().reset_parameters()
        self.bias_change.zero_()
        self._fill_start()

    def _fill_start(self) -> None:
        # Mirrors the buffer, so that no step waits for the device.
        self._has_started = self.config.bias != "auto"
        self.bias_start.fill_(float("inf") if self.config.bias == "auto" else self.config.bias)

    def _loss(self, a: Tensor, u: Tensor, batch: GlobalBatch) -> tuple[Tensor, dict[str, Tensor]]:
        bias = self._start(batch) + self.bias_change
        positives = batch.positives(self.config.positives)
        loss = sigmoid_loss(a, batch.u, positives, self.temperature, bias)
        return loss, {"bias": bias.detach().squeeze()}

    @not_compiled
    def _start(self, batch: GlobalBatch) -> Tensor:
        """What the bias starts from; the first training pass decides it."""
        if self._has_started:
            return self.bias_start
        start = balanced_bias(batch, self.config.positives, self.temperature)
        if self._trains:
            self.bias_start.copy_(start)
            self._has_started = True
        return start

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._has_started = bool(self.bias_start.isfinite())
        if not self._has_started:  # saved before its first pass
            self._fill_start()
