"""Sigmoid loss: every pair of the global batch is a question with the answer yes or no."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atr_moco_plugin.config import in_range
from atr_moco_plugin.contracts import DualEncoder
from atr_moco_plugin.criterion.config import CriterionConfig, LearnedTemperatureConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.tensors.float32 import cosines


@dataclass(kw_only=True)
class SiglipConfig(LearnedTemperatureConfig):
    """Sigmoid loss over all pairs of the global batch."""

    temperature: float = 0.1
    """Initial temperature, the inverse of the scale t = 10; it is learned."""

    bias: float = -10.0
    """Initial bias b, the paper's; it is learned. The log-odds of a positive, which a small batch
    suggests, were a worse start here (docs/which_criterion.md)."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from in_range(self, "bias", least=-100, most=100)


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

    def __init__(self, model: DualEncoder, config: SiglipConfig) -> None:
        super().__init__(model, config)
        self.bias = nn.Parameter(torch.tensor([config.bias], dtype=torch.float32))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See :meth:`Atc.reset_parameters`."""
        super().reset_parameters()
        self.bias.fill_(self.config.bias)

    def _loss(self, a: Tensor, u: Tensor, batch: GlobalBatch) -> tuple[Tensor, dict[str, Tensor]]:
        positives = batch.positives(self.config.positives)
        loss = sigmoid_loss(a, batch.u, positives, self.temperature, self.bias)
        return loss, {"bias": self.bias.detach().squeeze()}
