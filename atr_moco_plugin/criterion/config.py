"""Options of the criteria. Sources of the defaults are in docs/criterion.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.criterion.pairs import HardSides
from atr_moco_plugin.criterion.positives import PositivesMode
from atr_moco_plugin.criterion.teacher_options import TeacherOptions

TEMPERATURE_RANGE = (0.001, 0.5)
"""The learned temperature is clipped to this range after every step (ALBEF, BLIP before it)."""


@dataclass(kw_only=True)
class CriterionConfig(Config):
    """What every criterion has: a temperature, and positives by ids."""

    temperature: float = 0.07
    """Temperature at the start."""

    embed_dim: int | None = None
    """Embedding size the model must have; None takes the model's."""

    positives: PositivesMode = "clip_or_caption"
    """Which items count as positives: of one clip, or also of one caption text; ``pair``: of both,
    so that an item is the positive of itself and of a pair that is in the batch twice."""

    @property
    def temperature_range(self) -> tuple[float, float]:
        """What the temperature is clipped to after every step."""
        return TEMPERATURE_RANGE

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        low, high = TEMPERATURE_RANGE
        yield from in_range(self, "temperature", least=low, most=high)


@dataclass(kw_only=True)
class LearnedTemperatureConfig(CriterionConfig):
    """Of a criterion that learns its temperature."""

    temperature_min: float = TEMPERATURE_RANGE[0]
    """The learned temperature stays at or above it. On few data it falls for as long as the loss
    on known pairs can, with a queue above all; 0.05 keeps it near where it starts."""

    @property
    def temperature_range(self) -> tuple[float, float]:
        return self.temperature_min, TEMPERATURE_RANGE[1]

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        low, high = TEMPERATURE_RANGE
        yield from in_range(self, "temperature_min", least=low, most=high)
        if self.temperature < self.temperature_min:
            yield (
                f"`temperature_min` is {self.temperature_min}, above `temperature`, which is "
                f"{self.temperature}: lower it."
            )


@dataclass(kw_only=True)
class AtcConfig(TeacherOptions, LearnedTemperatureConfig):
    """In-batch contrastive loss without momentum, the baseline of CLIP and CLAP."""

    positives: PositivesMode = "pair"
    """``pair``: the diagonal, as CLAP trains, and a pair that is there twice. ``clip``,
    ``clip_or_caption``: all items of one clip, or of one text."""

    decoupled: bool = False
    """Leave the positives out of the denominators (DCL, Yeh et al. 2022)."""


@dataclass(kw_only=True)
class MocoAtcConfig(TeacherOptions, LearnedTemperatureConfig):
    """Contrastive loss against momentum queues with momentum soft targets."""

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

    queue_warmup_steps: int | Literal["auto"] = 0
    """Optimizer steps before the queue enters the loss; it is filled from the first step on. While
    encoders that start from random weights still drift fast, old rows differ from fresh ones by
    their age more than by their content (the "slow drift" of XBM, Wang et al. 2020). ``auto`` takes
    the youngest rows that do not tell their age, as many as there are at every time, see
    :mod:`atr_moco_plugin.criterion.queue_start`."""

    columns: Literal["momentum", "online", "both"] = "momentum"
    """What a query is compared with besides the queue: the momentum embeddings of the batch, or
    the online ones, with a gradient through both sides. ``both``: the loss is the mean of that with
    momentum columns and the queue, and that of ``atc``, in the batch alone."""

    keys: Literal["momentum", "online"] = "momentum"
    """What the queue holds: momentum embeddings, or the online ones that were computed anyway (XBM,
    Wang et al. 2020). With ``online`` there are no momentum copies: no memory, no pass and no soft
    targets, so ``alpha`` must be 0, and ``columns`` must be ``online`` too."""

    momentum: float = 0.995
    """EMA factor m of the momentum encoders."""

    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """``cosine`` raises m to 1 over the run (BYOL, Grill et al. 2020)."""

    momentum_per: Literal["step", "pair"] = "step"
    """What m is the factor of: an optimizer step, or a pair. A step of N pairs, over all processes
    and accumulated passes, is then one of m^N, so that a change of the batch keeps its time scale.
    For example 0.9984 a pair is 0.95 for 32."""

    alpha: float = 0.4
    """Weight of the momentum soft targets."""

    alpha_warmup_steps: int = 0
    """Optimizer steps over which alpha rises linearly from 0."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.queue_size != "auto":
            for problem in in_range(self, "queue_size", least=0):
                yield f"{problem.rstrip('.')}, or auto."
        # Two halves of two rows: of one row the rank is not defined.
        elif not 4 <= self.queue_min <= self.queue_max:
            yield (
                f"`queue_min` is {self.queue_min}, expected 4 to `queue_max`, which is "
                f"{self.queue_max}."
            )
        if self.queue_warmup_steps != "auto":
            for problem in in_range(self, "queue_warmup_steps", least=0):
                yield f"{problem.rstrip('.')}, or auto."
        elif 0 < (rows := self.queue_min if self.queue_size == "auto" else self.queue_size) < 8:
            # Four groups by age of two rows each.
            name = "queue_min" if self.queue_size == "auto" else "queue_size"
            yield (
                f"`queue_warmup_steps` is auto, which cannot tell the age of fewer than 8 rows, so "
                f"the queue would never enter the loss, but `{name}` is {rows}: set it to 8 or "
                "more, or `queue_warmup_steps` to a number."
            )
        yield from in_range(self, "alpha_warmup_steps", least=0)
        yield from in_range(self, "momentum", "alpha", least=0, most=1)
        if self.keys == "online":
            yield from self._problems_of_online_keys()

    def _problems_of_online_keys(self) -> Iterator[str]:
        why = "`keys` is online, so there are no momentum embeddings"
        if self.columns != "online":
            yield f"{why} for the batch's columns: set `columns` to online too."
        if self.alpha > 0:
            yield f"{why} for soft targets, but `alpha` is {self.alpha}: set it to 0."
        for name, default in (("momentum_schedule", "constant"), ("momentum_per", "step")):
            if (value := getattr(self, name)) != default:
                yield f"{why}, but `{name}` is {value}: leave it out."


@dataclass(kw_only=True)
class MocoAtcAtmConfig(MocoAtcConfig):
    """:class:`MocoAtcConfig` and the matching loss on hard negatives."""

    negatives: Literal["batch", "all_ranks"] = "batch"
    """Where hard negatives are drawn from: the batch of this process, or of all of them."""

    atm_start: int | Literal["auto"] = "auto"
    """Optimizer steps before the matching loss begins. Until then the head has no pass, no gradient
    and no weight decay, and nothing is re-ranked with it. ``auto`` waits until an item finds its
    own first of eight with probability 0.75, and for the last 40 % of a run whose length is known
    (:mod:`atr_moco_plugin.criterion.matching_start`)."""

    atm_every: int = 1
    """From then on it is in the first of so many optimizer steps, with its weight as it is."""

    atm_pairs: HardSides = "both"
    """Hard negatives of an item: a clip and a caption (``both``, BLIP), a clip (``audio``), a
    caption (``text``), or ``one``: half of the items have a clip, the others a caption, and at the
    next step the other way round. With one of them a matching pass costs two thirds."""

    atm_weight: float = 1.0
    """Weight of the matching loss."""

    atc_weight: float = 1.0
    """Weight of the contrastive loss."""

    seed: int = 0
    """Seed of the hard-negative draws."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.atm_start != "auto":
            for problem in in_range(self, "atm_start", least=0):
                yield f"{problem.rstrip('.')}, or auto."
        yield from in_range(self, "atm_every", least=1)
        yield from in_range(self, "atm_weight", "atc_weight", "seed", least=0)
        if self.atm_weight == 0:
            yield (
                "`atm_weight` is 0, so the matching head would learn nothing and yet re-rank: take "
                "the criterion `moco_atc`."
            )
        if self.atc_weight == 0:
            if not self.matches_always:
                yield (
                    "`atc_weight` is 0, so steps without a matching loss would learn nothing: set "
                    "`atm_start` to 0 and `atm_every` to 1."
                )
            if self.teachers:
                yield (
                    "`atc_weight` is 0, which leaves out what `teachers` add too: weight it with "
                    "`supervised_weight: 0` in its place."
                )

    @property
    def matches_always(self) -> bool:
        """Whether every step has a matching loss, so that a gradient reaches every parameter."""
        return self.atm_start == 0 and self.atm_every == 1
