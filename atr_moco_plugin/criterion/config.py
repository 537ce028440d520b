"""Options of the criteria. Sources of the defaults are in the README's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atr_moco_plugin.criterion.positives import MODES, PositivesMode
from atr_moco_plugin.errors import InputError

TEMPERATURE_RANGE = (0.001, 0.5)
"""The learned temperature is clipped to this range before every step (ALBEF, BLIP)."""


@dataclass(kw_only=True)
class AtcConfig:
    """In-batch contrastive loss without momentum, the baseline of CLIP and CLAP."""

    temperature: float = 0.07
    """Initial temperature; it is learned."""

    embed_dim: int | None = None
    """Embedding size the model must have; None takes the model's."""

    positives: PositivesMode = "pair"
    """``pair``: only the diagonal, as CLAP trains. ``clip``, ``clip_or_caption``: with ids."""

    def __post_init__(self) -> None:
        low, high = TEMPERATURE_RANGE
        if not low <= self.temperature <= high:
            raise InputError(f"`temperature` is {self.temperature}, expected {low} to {high}.")
        if self.positives not in MODES:
            raise InputError(
                f"`positives` is {self.positives!r}, expected one of {', '.join(MODES)}."
            )


@dataclass(kw_only=True)
class MocoAtcConfig(AtcConfig):
    """Contrastive loss against momentum queues with momentum soft targets."""

    positives: PositivesMode = "clip_or_caption"
    """Which items count as positives: of one clip, or also of one caption text."""

    queue_size: int | Literal["auto"] = 65_536
    """Rows of each queue. ``auto`` starts with ``queue_min`` rows and doubles them as long as the
    older half of a full queue is worth it by the rule of :mod:`atr_moco_plugin.rank.growth`. That
    is asked whenever the queue is full after the warm-up and, where the answer was no, again each
    time it has been rewritten, since a space may open up later; a queue never shrinks."""

    queue_min: int = 256
    """Rows that ``queue_size: auto`` starts with."""

    queue_max: int = 65_536
    """Rows that ``queue_size: auto`` ends with at most; memory for them is taken at the start."""

    queue_positives: Literal["target", "ignore"] = "target"
    """Queue rows that are positives: share the target mass (ALBEF with ids), or take no part in
    the loss, so that stale copies do not dilute the fresh pair."""

    queue_warmup_steps: int = 0
    """Optimizer steps before the queue enters the loss; it is filled from the first step on. While
    encoders that start from random weights still drift fast, old rows differ from fresh ones by
    their age more than by their content (the "slow drift" of XBM, Wang et al. 2020)."""

    momentum: float = 0.995
    """EMA factor m of the momentum encoders."""

    alpha: float = 0.4
    """Weight of the momentum soft targets."""

    alpha_warmup_steps: int = 0
    """Optimizer steps over which alpha rises linearly from 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.queue_size, str):
            if self.queue_size != "auto":
                raise InputError(f"`queue_size` is {self.queue_size!r}, expected rows or auto.")
            # Two halves of two rows: of one row the rank is not defined.
            if not 4 <= self.queue_min <= self.queue_max:
                raise InputError(
                    f"`queue_min` is {self.queue_min}, expected 4 to `queue_max`, which is "
                    f"{self.queue_max}."
                )
        elif self.queue_size < 0:
            raise InputError(f"`queue_size` is {self.queue_size}, expected 0 or more, or auto.")
        for name in ("queue_warmup_steps", "alpha_warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"`{name}` is {getattr(self, name)}, expected 0 or more.")
        for name in ("momentum", "alpha"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise InputError(f"`{name}` is {value}, expected 0 to 1.")
        if self.queue_positives not in ("target", "ignore"):
            raise InputError(
                f"`queue_positives` is {self.queue_positives!r}, expected target or ignore."
            )


@dataclass(kw_only=True)
class MocoAtcAtmConfig(MocoAtcConfig):
    """:class:`MocoAtcConfig` and the matching loss on hard negatives."""

    negatives: Literal["batch", "all_ranks"] = "batch"
    """Where hard negatives are drawn from: this rank's batch, or those of all ranks."""

    atm_weight: float = 1.0
    """Weight of the matching loss."""

    atc_weight: float = 1.0
    """Weight of the contrastive loss."""

    seed: int = 0
    """Seed of the hard-negative draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives not in ("batch", "all_ranks"):
            raise InputError(f"`negatives` is {self.negatives!r}, expected batch or all_ranks.")
        for name in ("atm_weight", "atc_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"`{name}` is {getattr(self, name)}, expected 0 or more.")
