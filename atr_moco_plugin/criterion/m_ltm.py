"""m-LTM (Luong et al., ICLR 2024): a distance is learned with a plan of optimal transport."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atr_moco_plugin.config import in_range
from atr_moco_plugin.contracts import DualEncoder
from atr_moco_plugin.criterion.config import CriterionConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.transport import (
    learned_distances,
    log_plan,
    metric_rank,
    transport_loss,
)

_ONE = math.log(math.e - 1)  # its softplus is 1


@dataclass(kw_only=True)
class MLtmConfig(CriterionConfig):
    """Optimal transport over a learned distance, without momentum."""

    temperature: float = 0.03
    """Entropic regularisation of the plan; it is not learned. Evaluation divides cosines by it."""

    sinkhorn_iterations: int = 50
    """Sinkhorn iterations of each step, of which the last one makes the rows right."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from in_range(self, "sinkhorn_iterations", least=1)


class MLtm(Atc):
    """Mini-batch Learning-to-match with a diagonal metric, the form that the authors' code runs.

    With weights m > 0 of the embeddings' dimensions, over all N pairs of all processes::

        D_ij = sqrt(sum_k m_k (a_ik - u_jk)^2 + 1e-6)
        pi   = Sinkhorn(1/N, 1/N, D / max D, temperature)
        L    = -1/N sum_ij y_ij log pi_ij

    where ``y_i`` spreads over the positives of item i (Luong et al., "Revisiting Deep Audio-Text
    Retrieval Through the Lens of Transportation", ICLR 2024). ``m`` is the softplus of what is
    trained, 1 at first. The authors evaluate with Sinkhorn over the whole test set, where one
    query's result depends on the others; here queries are ranked one by one by D, see
    :mod:`atr_moco_plugin.learned_distance`.

    The temperature is the plan's regularisation and stays as it is: L has no scale of its own that
    a learned one could find, since D is divided by its maximum.

    Args:
        model: see :class:`Atc`.
        config: the options.

    Attributes:
        metric: ``[d]`` float32, of which the softplus are the weights.

    Raises:
        InputError: see :class:`Atc`.
    """

    config_class: ClassVar[type[CriterionConfig]] = MLtmConfig

    measures: ClassVar[tuple[str, ...]] = (*Atc.measures, "metric_rank")

    # That of a pretrained model is of cosines.
    learns_temperature: ClassVar[bool] = False

    config: MLtmConfig
    metric: nn.Parameter

    def __init__(self, model: DualEncoder, config: MLtmConfig) -> None:
        super().__init__(model, config)
        # A buffer: hosts make every parameter trainable that they find.
        temperature = self.temperature.detach()
        del self.temperature
        self.register_buffer("temperature", temperature)
        self.metric = nn.Parameter(self._first_metric(model.embed_dim))

    @staticmethod
    def _first_metric(embed_dim: int) -> Tensor:
        return torch.full((embed_dim,), _ONE)

    @staticmethod
    def distance_factor(parameters: Mapping[str, Tensor]) -> Tensor:
        """The factor L of the learned ``M = L^T L``, see
        :class:`~atr_moco_plugin.contracts.Criterion`."""
        return F.softplus(parameters["metric"].float()).sqrt()

    @staticmethod
    def no_weight_decay() -> set[str]:
        """Weights of a distance are not drawn to 0, see
        :func:`~atr_moco_plugin.optim.parameter_groups`."""
        return {"metric"}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.metric.copy_(self._first_metric(len(self.metric)))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        # An option and nothing learned: that of this run counts.
        self.temperature.fill_(self.config.temperature)

    def _loss(self, a: Tensor, u: Tensor, batch: GlobalBatch) -> tuple[Tensor, dict[str, Tensor]]:
        factor = self.distance_factor({"metric": self.metric})
        # Every process computes the whole plan, and takes the loss of its own rows.
        distances = learned_distances(batch.a, batch.u, factor)
        scores = -distances / (distances.max() * self.temperature)
        plan = log_plan(scores, self.config.sinkhorn_iterations)
        loss = transport_loss(plan[batch.own], batch.positives(self.config.positives))
        return loss, {"metric_rank": metric_rank(factor.detach())}


class MLtmFull(MLtm):
    """:class:`MLtm` with a full positive semi-definite matrix ``M = L^T L``, as the paper writes
    it. What is trained is L, the identity at first.

    Attributes:
        metric: ``[d, d]`` float32, L.
    """

    @staticmethod
    def _first_metric(embed_dim: int) -> Tensor:
        return torch.eye(embed_dim)

    @staticmethod
    def distance_factor(parameters: Mapping[str, Tensor]) -> Tensor:
        """L itself."""
        return parameters["metric"].float()
