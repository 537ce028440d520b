"""Global contrastive loss: a running sum for every clip and caption in place of a large batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from atr_moco_plugin.config import in_range
from atr_moco_plugin.contracts import DualEncoder
from atr_moco_plugin.criterion.config import CriterionConfig, LearnedTemperatureConfig
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.global_contrastive import global_contrastive_loss, log_partition
from atr_moco_plugin.criterion.in_batch import Atc
from atr_moco_plugin.criterion.running_sums import RunningSums
from atr_moco_plugin.distributed import gather_packed
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tensors.float32 import cosines

RHO_SHARE = 0.25
"""``rho`` over the logarithm of a query's negatives in a batch, from tries with 8 pairs."""


@dataclass(kw_only=True)
class SogClrConfig(LearnedTemperatureConfig):
    """Global contrastive loss with running sums. Defaults are FastCLIP v3's on CC3M, but for
    ``rho``."""

    gamma_min: float = 0.2
    """Weight of a batch in the running sums from the middle of the run on. It falls from 1."""

    rho: float | Literal["auto"] = "auto"
    """Pulls the temperature down: it comes to rest where the weights of the negatives have this
    Kullback-Leibler divergence from even ones. While gamma is 1 that is at most the logarithm of
    the negatives of a batch, so 6.5, FastCLIP's for 1,024 pairs of CC3M, would drive it to its
    lower end in smaller batches. ``auto`` takes :data:`RHO_SHARE` of that logarithm."""

    temperature_min: float = 0.01
    """The temperature stays at or above it."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from in_range(self, "gamma_min", above=0, most=1)
        if self.rho != "auto":
            for problem in in_range(self, "rho", least=0):
                yield f"{problem.rstrip('.')}, or auto."


class SogClr(Atc):
    """Global contrastive loss with the falling gamma and the learned temperature of FastCLIP v3
    (SogCLR, Yuan et al. 2022; FastCLIP, Wei et al. 2024).

    ``u_i <- (1 - gamma) u_i + gamma g_i`` runs over the visits of a clip, and of a caption. What
    was never seen, a mixture of two clips (drawn anew each time) and a query without negatives in
    the batch take the estimate of the batch alone, gamma 1; the last two leave nothing behind. The
    sums are kept as logarithms, which need no running maximum against overflow.

    The papers keep ``g_i`` divided by ``exp(s_ii / tau)``, by pair. That quotient falls by orders
    of magnitude while ``s_ii`` is learned, so a mean over visits is that of the first ones, and the
    weights of a pair that was seen twice are next to nothing.

    gamma falls from 1 to ``gamma_min`` along a cosine over the first half of ``total_steps``.

    Args:
        model: see :class:`Atc`.
        config: the options.

    Attributes:
        clip_sums: the running sums of clips. Equal on every process.
        caption_sums: those of captions.

    Raises:
        InputError: in the first training pass, where ``total_steps`` is ``None``.
    """

    config_class: ClassVar[type[CriterionConfig]] = SogClrConfig

    measures: ClassVar[tuple[str, ...]] = (*Atc.measures, "gamma", "clips_seen")

    config: SogClrConfig
    num_steps: Tensor

    def __init__(self, model: DualEncoder, config: SogClrConfig) -> None:
        super().__init__(model, config)
        self.clip_sums, self.caption_sums = RunningSums(), RunningSums()
        self.register_buffer("num_steps", torch.zeros(1, dtype=torch.int64))
        self._num_steps = 0  # mirrors the buffer, so that no step waits for the device

    @property
    def gamma(self) -> float:
        """Weight of the batch in the running sums at this step; 1 where ``total_steps`` is
        ``None``."""
        half = (self.total_steps or 0) / 2
        progress = min(1.0, self._num_steps / half) if half else 0.0
        low = self.config.gamma_min
        return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """See :meth:`Atc.reset_parameters`."""
        super().reset_parameters()
        self.clip_sums.reset_parameters()
        self.caption_sums.reset_parameters()
        self.num_steps.zero_()
        self._num_steps = 0

    @torch.no_grad()
    def on_optimizer_step(self) -> None:
        """See :meth:`Atc.on_optimizer_step`; counts the step."""
        super().on_optimizer_step()
        self._num_steps += 1
        self.num_steps.fill_(self._num_steps)

    def set_data(self, fingerprint: str) -> None:
        """Name the data that the ids belong to, as :meth:`MocoAtc.set_data` does: running sums of
        other data are dropped, with a warning."""
        for sums in (self.clip_sums, self.caption_sums):
            sums.set_data(stable_digest("data", fingerprint))

    @not_compiled
    def _start_pass(self) -> None:
        super()._start_pass()
        if self._trains and self.total_steps is None:
            raise InputError(
                "gamma of `sogclr` falls over the first half of the run, but nobody has said how "
                "long it is: set `criterion.total_steps = N`, its optimizer steps, before the "
                "first one."
            )

    def _loss(self, a: Tensor, u: Tensor, batch: GlobalBatch) -> tuple[Tensor, dict[str, Tensor]]:
        negatives = ~batch.positives(self.config.positives)
        with torch.autocast(a.device.type, enabled=False):
            own = (a.float() * u.float()).sum(dim=1)
            sides = [cosines(a, batch.u), cosines(u, batch.a)]
            log_g = [log_partition(x, negatives, self.temperature) for x in sides]
            log_u, rho = self._visit(torch.stack(log_g, dim=1), batch), self._rho(negatives)
            a2t, t2a = (
                global_contrastive_loss(x, own, negatives, y, self.temperature, rho)
                for x, y in zip(sides, log_u.unbind(1), strict=True)
            )
            return (a2t + t2a) / 2, self._state_measures(a)

    @not_compiled
    def _visit(self, log_g: Tensor, batch: GlobalBatch) -> Tensor:
        """``[B, 2]``, ``log u`` of clips and captions of this process with their ``log g`` in it. A
        training pass keeps the sums of all processes."""
        tables, ids = (self.clip_sums, self.caption_sums), [batch.clip_ids, batch.caption_ids]
        kept = torch.ones(len(ids[0]), dtype=torch.bool, device=log_g.device)
        if ids[0].dim() == 2:
            kept, ids = ids[0][:, 1] < 0, [x[:, 0].contiguous() for x in ids]
        before = [x.look_up(y[batch.own]) for x, y in zip(tables, ids, strict=True)]
        mixed = torch.where(kept[batch.own, None], torch.stack(before, dim=1), torch.nan)
        stays = math.log(1 - self.gamma) if self.gamma < 1 else -math.inf
        after = torch.logaddexp(mixed + stays, log_g + math.log(self.gamma))
        after = torch.where(mixed.isnan(), log_g, after)
        # Without a negative nothing was seen.
        after = torch.where(log_g.isneginf(), log_g, after)
        if self._trains:
            (of_all,) = gather_packed(after, counts=batch.counts)
            of_all = torch.where(kept[:, None] & of_all.isfinite().all(1, True), of_all, torch.nan)
            for table, own, found in zip(tables, ids, of_all.unbind(1), strict=True):
                table.write(own, found)
        return after

    def _rho(self, negatives: Tensor) -> float | Tensor:
        if self.config.rho != "auto":
            return self.config.rho
        return RHO_SHARE * negatives.sum(dim=1).clamp(min=1).log()

    @not_compiled
    def _state_measures(self, like: Tensor) -> dict[str, Tensor]:
        # Filled on the device: a copy from the host would wait for it.
        values = {"gamma": self.gamma, "clips_seen": float(len(self.clip_sums))}
        return {name: like.new_full((), x, dtype=torch.float32) for name, x in values.items()}

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_steps = int(self.num_steps)
