"""Configuration of the retrieval recipes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fairseq2.recipe.config import (
    CommonSection,
    CosineAnnealingLRConfig,
    DatasetSection,
    GangSection,
    GradAccumulationConfig,
    LRSchedulerSection,
    MixedPrecisionConfig,
    ModelSection,
    OptimizerSection,
    RegimeSection,
    SupportsStructure,
    TrainerSection,
)
from fairseq2.runtime.dependency import DependencyResolver
from fairseq2.utils.config import ConfigMerger
from fairseq2.utils.validation import Validatable, ValidationResult
from typing_extensions import override

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.dataset import open_with_decoder
from atr_moco_plugin.hosts.fairseq2.config.init import find_source, start_from
from atr_moco_plugin.hosts.fairseq2.config.optimizer import OPTIMIZER, RetrievalAdamWConfig
from atr_moco_plugin.hosts.fairseq2.config.refused import refused
from atr_moco_plugin.hosts.fairseq2.training.model import FAMILY, leave_options_of_replaced_parts


@dataclass(kw_only=True)
class RetrievalDatasetSection(DatasetSection):
    """A data set and how batches are made of it. ``config_overrides`` are the data set's own
    options, ``root`` above all."""

    batch_size: int = 64
    """Pairs a batch on each process."""

    max_seconds: float = 10.0
    """Longer clips are cropped in training, at random; shorter ones are padded and masked."""

    captions: Literal["random", "all"] = "random"
    """What an epoch is: every clip once with a random one of its captions, or every pair."""

    num_workers: int = 0
    """Processes that decode audio on each rank; 0 decodes between the steps. An evaluation has as
    many threads."""

    prefetch: int = 2
    """Batches that each of them has ready."""

    decoder: Literal["soundfile", "torchcodec"] = "soundfile"
    """What decodes audio files; torchcodec needs FFmpeg's libraries."""

    cache_dir: Path | None = None
    """Folder for decoded audio, shared by all processes and runs; None decodes every time."""

    augment: AugmentConfig | None = None
    """Random changes of training waveforms."""

    max_bad_clips: int | None = None
    """Unreadable training clips that each process skips, naming each once in a warning, and clips
    of a split that its evaluations leave out; one more stops the run. None takes one in a thousand
    clips of the split, at least 10."""

    train_split: str = "train"
    """Split to train on."""

    valid_split: str = "valid"
    """Split the best checkpoint is chosen on."""

    def validate(self) -> ValidationResult:
        result = super().validate()
        if self.batch_size < 2:
            result.add_error(f"`batch_size` is {self.batch_size}, but must be 2 or more.")
        if not 0.175 <= self.max_seconds < math.inf:
            result.add_error(f"`max_seconds` is {self.max_seconds}, but must be 0.175 or more.")
        for name, least in (("num_workers", 0), ("prefetch", 1), ("max_bad_clips", 0)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                result.add_error(f"`{name}` is {getattr(self, name)}, but must be {least} or more.")
        return result


@dataclass(kw_only=True)
class CaptionTokenizerSection(Validatable):
    """Where caption tokens come from."""

    name: str | None = None
    """A Hugging Face name, a local folder or a package that carries one; None trains a WordPiece
    on the captions of the train split."""

    vocab_size: int = 512
    """Size of a vocabulary that is trained here."""

    max_tokens: int = 64
    """Longer captions are cut; at most the text encoder's positions."""

    allow_unknown: bool = False
    """Train and evaluate also where more than half of the captions are ``[UNK]`` alone to the
    tokenizer."""

    @override
    def validate(self) -> ValidationResult:
        result = ValidationResult()
        if self.max_tokens < 3:
            result.add_error(f"`max_tokens` is {self.max_tokens}, but must be 3 or more.")
        return result


@dataclass(kw_only=True)
class EvaluationSection(Validatable):
    """How retrieval is measured."""

    rerank_k: int = 32
    """Candidates of each query that the matching head re-ranks; 0 leaves re-ranking out."""

    rerank_while_training: bool = False
    """Re-rank at every validation too, and not only when the best checkpoint is evaluated."""

    batch_size: int = 64
    """Clips, captions or pairs a forward pass."""

    max_seconds: float | None = None
    """A clip is evaluated whole up to this length, of a longer one its beginning; None takes that
    of ``dataset``."""

    test_split: str | None = None
    """Split on which the best checkpoint is evaluated once at the end; None evaluates on none."""

    @override
    def validate(self) -> ValidationResult:
        result = ValidationResult()
        if self.rerank_k < 0:
            result.add_error(f"`rerank_k` is {self.rerank_k}, but must be 0 or more.")
        if self.batch_size < 1:
            result.add_error(f"`batch_size` is {self.batch_size}, but must be 1 or more.")
        if self.max_seconds is not None and not 0.175 <= self.max_seconds < math.inf:
            result.add_error(f"`max_seconds` is {self.max_seconds}, but must be 0.175 or more.")
        return result


@dataclass(kw_only=True)
class SafetySection(Validatable):
    """What happens when a number is not finite."""

    max_skipped_steps: int = 0
    """Steps whose loss or gradients are NaN or infinite that are left out, each with a warning that
    names the batch's clips; one more stops the run. They are counted anew when a run resumes."""

    @override
    def validate(self) -> ValidationResult:
        result = ValidationResult()
        if self.max_skipped_steps < 0:
            result.add_error(
                f"`max_skipped_steps` is {self.max_skipped_steps}, but must be 0 or more."
            )
        return result


def adamw(**options: Any) -> OptimizerSection:
    """AdamW with the options of :class:`~.optim.RetrievalAdamWConfig`."""
    return OptimizerSection(name=OPTIMIZER, config=RetrievalAdamWConfig(**options))


def cosine(num_warmup_steps: int) -> LRSchedulerSection:
    """Linear warm-up, then one cosine over the rest of the run down to 1 % of the rate."""
    return LRSchedulerSection(
        config=CosineAnnealingLRConfig(num_warmup_steps=num_warmup_steps, final_lr_scale=0.01)
    )


def bf16(accumulate: int = 1) -> TrainerSection:
    """Autocast to bfloat16 with float32 weights; loss, queues and averages stay in float32.

    Args:
        accumulate: batches whose gradients an optimizer step adds up.
    """
    return TrainerSection(
        mixed_precision=MixedPrecisionConfig(mode="auto"),
        grad_accumulation=GradAccumulationConfig(num_batches=accumulate),
    )


def best_by_r_sum(num_steps: int, every: int, report_every: int) -> RegimeSection:
    """Validate and save every ``every`` steps; keep the last checkpoint and the one with the best
    validation R-sum, which is how the paper chooses."""
    return RegimeSection(
        num_steps=num_steps,
        validate_every_n_steps=every,
        checkpoint_every_n_steps=every,
        publish_metrics_every_n_steps=report_every,
        score_metric="r_sum",
        keep_best_n_checkpoints=1,
    )


@dataclass(kw_only=True)
class RetrievalRecipeConfig(SupportsStructure, Validatable):
    """A whole training run. Sections without a comment here are fairseq2's own."""

    init: str = "random"
    """What the weights start from: ``pretrained`` (both encoders, from ``checkpoint`` of the audio
    and ``pretrained`` of the text encoder's options), ``random`` (each part without such a source
    starts at random), or an earlier run: its output folder (the best checkpoint), one of its
    ``checkpoints/step_N`` folders or a file. Of a run come the architecture, the towers, the head
    and the tokenizer; queues and temperature start anew."""

    # fairseq2 takes a recipe for a training recipe because of this type hint.
    model: ModelSection = field(default_factory=lambda: ModelSection(family=FAMILY, arch="base"))
    dataset: RetrievalDatasetSection
    tokenizer: CaptionTokenizerSection = field(default_factory=CaptionTokenizerSection)
    criterion: CriterionSection | str = field(
        default_factory=lambda: CriterionSection(name="moco_atc_atm")
    )
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    safety: SafetySection = field(default_factory=SafetySection)
    hooks: Mapping[str, object] = field(default_factory=lambda: {"rank": {}})
    """Hook name (group ``atr_moco_plugin.hooks``) to its options."""

    report: bool = True
    """Write ``report/index.html`` at the end of the run."""

    gang: GangSection = field(default_factory=GangSection)
    trainer: TrainerSection = field(
        default_factory=lambda: TrainerSection(mixed_precision=MixedPrecisionConfig(mode="off"))
    )
    optimizer: OptimizerSection = field(default_factory=adamw)
    lr_scheduler: LRSchedulerSection = field(
        default_factory=lambda: LRSchedulerSection(config=CosineAnnealingLRConfig())
    )
    regime: RegimeSection = field(default_factory=RegimeSection)
    common: CommonSection = field(default_factory=lambda: CommonSection(no_sweep_dir=True))

    @property
    def criterion_section(self) -> CriterionSection:
        """``criterion``, also where it was given by its name alone."""
        if isinstance(self.criterion, str):
            return CriterionSection(name=self.criterion)
        return self.criterion

    @override
    def structure(self, resolver: DependencyResolver) -> None:
        # The root is visited first, its fields afterwards.
        self.criterion = self.criterion_section
        default = next(x.default_factory for x in fields(self) if x.name == "criterion")
        self.criterion.leave_options_of(default())
        merger = resolver.resolve(ConfigMerger)
        leave_options_of_replaced_parts(self.model, merger)
        open_with_decoder(self.dataset, merger)
        source = find_source(self.init)
        if source is not None:
            start_from(source, self.model, merger)
            if source.tokenizer is not None:
                # Another one would give the text tower other ids than it was trained with.
                self.tokenizer.name = str(source.tokenizer)

    @override
    def validate(self) -> ValidationResult:
        result = ValidationResult()
        for reason in refused(self.gang, self.trainer):
            result.add_error(reason)
        schedule, steps = self.lr_scheduler.config, self.regime.num_steps
        if isinstance(schedule, CosineAnnealingLRConfig) and steps is not None:
            # fairseq2 would divide by zero in the last step; a run that ends within its warm-up is
            # odd, but what one does to try things out.
            if schedule.cycle_len is None and schedule.num_warmup_steps == steps:
                result.add_error(
                    f"`lr_scheduler.config.num_warmup_steps` is all of `regime.num_steps`, {steps}, "
                    "and leaves the schedule no step; lower it."
                )
        return result
