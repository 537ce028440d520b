"""Sections of a fine-tuning's configuration that say how steps are made, and how many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from atr_moco_plugin.config import Config, in_range


@dataclass(kw_only=True)
class MixedPrecision(Config):
    """Precision of the forward and backward pass."""

    mode: Literal["off", "auto"] | None = None
    """``auto`` computes in bfloat16 with float32 weights; None takes it on a GPU that can."""


@dataclass(kw_only=True)
class Accumulation(Config):
    """Gradients of several batches in a step."""

    num_batches: int = 1
    """Batches a step."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "num_batches", least=1)


@dataclass(kw_only=True)
class GradCache(Config):
    """Gradient caching (Gao et al. 2021): a large batch in the memory of a small one."""

    chunk_size: int | None = None
    """Clips, and captions, that are encoded at once; None encodes the batch at once."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "chunk_size", least=1)


@dataclass(kw_only=True)
class TrainerSection(Config):
    """How a step is computed."""

    mixed_precision: MixedPrecision = field(default_factory=MixedPrecision)
    grad_accumulation: Accumulation = field(default_factory=Accumulation)
    grad_cache: GradCache = field(default_factory=GradCache)

    max_grad_norm: float | None = None
    """Longest gradient; None does not clip."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "max_grad_norm", above=0)


@dataclass(kw_only=True)
class AdamWConfig(Config):
    """AdamW; temperature, biases and norms are not weight-decayed."""

    lr: float | None = None
    """Learning rate of everything without one of its own."""

    audio_lr: float | None = None
    """Learning rate of the audio encoder."""

    text_lr: float | None = None
    """Learning rate of the text encoder."""

    temperature_lr: float | None = None
    """Learning rate of the temperature."""

    layer_decay: float = 1.0
    """Factor on the rate from each layer of an encoder to the one below."""

    head_lr_scale: float = 1.0
    """Factor on the rate for the matching head."""

    weight_decay: float = 0.05
    """Of weight matrices, embeddings and kernels."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    """Averaging factors of the gradient and of its square."""

    eps: float = 1e-8
    """Added to the denominator."""

    def problems(self) -> Iterator[str]:
        yield from in_range(
            self, "lr", "audio_lr", "text_lr", "temperature_lr", "head_lr_scale", above=0
        )
        yield from in_range(self, "layer_decay", above=0, most=1)
        yield from in_range(self, "weight_decay", "eps", least=0)
        yield from wrong_betas(self.betas)


def wrong_betas(betas: Sequence[float]) -> Iterator[str]:
    """One sentence where these are no averaging factors of AdamW."""
    if len(betas) != 2 or not all(0 <= x < 1 for x in betas):
        yield f"`betas` is {list(betas)}, expected two numbers from 0 to below 1."


@dataclass(kw_only=True)
class OptimizerSection(Config):
    """AdamW."""

    config: AdamWConfig = field(default_factory=AdamWConfig)


@dataclass(kw_only=True)
class ScheduleConfig(Config):
    """Linear warm-up, then one cosine over the rest of the run."""

    num_warmup_steps: int | None = None
    """Steps of the warm-up."""

    final_lr_scale: float = 0.01
    """Rate of the last step as a share of the highest."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "num_warmup_steps", least=0)
        yield from in_range(self, "final_lr_scale", least=0, most=1)


@dataclass(kw_only=True)
class ScheduleSection(Config):
    """The learning rate over the steps."""

    config: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass(kw_only=True)
class RegimeSection(Config):
    """How long, and what happens how often."""

    num_steps: int | None = None
    """Optimizer steps."""

    validate_every_n_steps: int | None = None
    """Steps from a validation to the next."""

    checkpoint_every_n_steps: int | None = None
    """Steps from a checkpoint to the next; None saves with each validation."""

    publish_metrics_every_n_steps: int | None = None
    """Steps from a line of ``metrics/train.jsonl`` to the next."""

    score_metric: str = "r_sum"
    """Figure of the validation split that the best checkpoint has the most of."""

    def problems(self) -> Iterator[str]:
        names = ("num_steps", "validate_every_n_steps", "publish_metrics_every_n_steps")
        yield from in_range(self, *names, "checkpoint_every_n_steps", least=1)
