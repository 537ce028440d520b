"""Sections of a recipe's configuration, and presets of fairseq2's own ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ParamSpec, TypeVar

from fairseq2.recipe.config import (
    CosineAnnealingLRConfig,
    DatasetSection,
    LRSchedulerSection,
    OptimizerSection,
    RegimeSection,
)
from fairseq2.utils.config import ConfigMerger
from fairseq2.utils.validation import Validatable, ValidationResult
from typing_extensions import override

from atr_moco_plugin.config import in_range
from atr_moco_plugin.data.loading.training import LoadingOptions
from atr_moco_plugin.data.sets.registry import DATASETS, one_decoder
from atr_moco_plugin.hosts.fairseq2.config.checks import result_of
from atr_moco_plugin.hosts.fairseq2.config.optimizer import OPTIMIZER, RetrievalAdamWConfig
from atr_moco_plugin.hosts.fairseq2.errors import one_line_errors

P = ParamSpec("P")
SectionT = TypeVar("SectionT")

MIN_SECONDS = 0.175
"""Length of a BEATs token."""


def default(make: Callable[P, SectionT], *args: P.args, **options: P.kwargs) -> SectionT:
    """The default of a dataclass's field: a section that is made anew for each configuration.

    Args:
        make: the section's class, or a function that makes one.
        args: its arguments.
        options: its arguments by name.
    """

    def factory() -> SectionT:
        return make(*copy.deepcopy(args), **copy.deepcopy(options))

    return field(default_factory=factory)


@dataclass(kw_only=True)
class RetrievalDatasetSection(LoadingOptions, DatasetSection):
    """A data set and how batches are made of it. ``config_overrides`` are the data set's own
    options, ``root`` above all."""

    batch_size: int = 64
    """Pairs a batch on each process."""

    max_seconds: float = 10.0
    """Longer clips are cropped in training, at random; shorter ones are padded and masked."""

    @override
    def validate(self) -> ValidationResult:
        return result_of(
            super().validate().errors,
            in_range(self, "batch_size", least=2),
            in_range(self, "max_seconds", least=MIN_SECONDS),
            self.loading_problems(),
        )


@dataclass(kw_only=True)
class CaptionTokenizerSection(Validatable):
    """Where caption tokens come from."""

    name: str | None = None
    """A Hugging Face name, a local folder or a package that carries one; None takes that of the
    text encoder's weights where the encoder says so, as ``hf_text`` does, and else trains a
    WordPiece on the captions of the train split."""

    vocab_size: int = 512
    """Size of a vocabulary that is trained here."""

    max_tokens: int = 64
    """Longer captions are cut; at most the text encoder's positions."""

    allow_unknown: bool = False
    """Train and evaluate also where more than half of the captions are ``[UNK]`` alone to the
    tokenizer."""

    @override
    def validate(self) -> ValidationResult:
        return result_of(in_range(self, "max_tokens", least=3))


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
        return result_of(
            in_range(self, "rerank_k", least=0),
            in_range(self, "batch_size", least=1),
            in_range(self, "max_seconds", least=MIN_SECONDS),
        )


@dataclass(kw_only=True)
class SafetySection(Validatable):
    """What happens when a number is not finite."""

    max_skipped_steps: int = 0
    """Steps whose loss or gradients are NaN or infinite that are left out, each with a warning that
    names the batch's clips; one more stops the run. They are counted anew when a run resumes."""

    @override
    def validate(self) -> ValidationResult:
        return result_of(in_range(self, "max_skipped_steps", least=0))


def adamw(**options: Any) -> OptimizerSection:
    """AdamW with the options of :class:`RetrievalAdamWConfig`."""
    return OptimizerSection(name=OPTIMIZER, config=RetrievalAdamWConfig(**options))


def cosine(num_warmup_steps: int) -> LRSchedulerSection:
    """Linear warm-up, then one cosine over the rest of the run down to 1 % of the rate."""
    return LRSchedulerSection(
        config=CosineAnnealingLRConfig(num_warmup_steps=num_warmup_steps, final_lr_scale=0.01)
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


def open_with_decoder(section: Any, merger: ConfigMerger) -> None:
    """Have ``dataset.decoder``, which decodes the audio later, read the headers of files too.

    Args:
        section: the section ``dataset`` of a recipe; its ``config_overrides`` change.
        merger: fairseq2's.

    Raises:
        RecipeError: if the data set's own option of that name says otherwise.
    """
    overrides = section.config_overrides or {}
    with one_line_errors():
        decoder = one_decoder(overrides, section.decoder or "soundfile")
    options = fields(DATASETS[section.family][0]) if section.family in DATASETS else ()
    if decoder != "soundfile" and "decoder" in {option.name for option in options}:
        section.config_overrides = merger.merge(overrides, {"decoder": decoder})
