"""The configuration of a fine-tuning, whatever the loop: the keys of the recipes, without fairseq2.

What is None is chosen from the data and the memory, see :mod:`atr_moco_plugin.finetuning.plan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.data.audio.augment import AugmentConfig


@dataclass(kw_only=True)
class ModelSection(Config):
    """The model that ``init=random`` makes, and what is changed of any other."""

    arch: str | None = None
    """``toy``, ``small`` or ``base``, for ``init=random``."""

    config_overrides: dict[str, Any] = field(default_factory=dict)
    """Options of :class:`~atr_moco_plugin.model.RetrievalModelConfig`, such as ``audio.freeze``."""


@dataclass(kw_only=True)
class DatasetSection(Config):
    """The pairs, and how batches are made of them."""

    family: str = "folder"
    """Name of a data set; ``folder`` takes any folder of sounds."""

    config_overrides: dict[str, Any] = field(default_factory=dict)
    """The data set's own options, ``root`` above all."""

    batch_size: int | None = None
    """Pairs a batch on each process."""

    max_seconds: float | None = None
    """Longer clips are cropped in training, at random; shorter ones are padded and masked."""

    captions: Literal["random", "all"] = "random"
    """What an epoch is: every clip once with a random one of its captions, or every pair."""

    num_workers: int = 0
    """Workers that decode audio; 0 decodes between the steps."""

    prefetch: int = 2
    """Batches that each of them has ready."""

    decoder: Literal["soundfile", "torchcodec"] = "soundfile"
    """What decodes audio files."""

    cache_dir: Path | None = None
    """Folder for decoded audio; None decodes every time."""

    augment: AugmentConfig | None = None
    """Random changes of training waveforms."""

    max_bad_clips: int | None = None
    """Unreadable clips that are skipped; None takes one in a thousand, at least 10."""

    train_split: str = "train"
    """Split to train on."""

    valid_split: str = "valid"
    """Split the best checkpoint is chosen on."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "batch_size", least=2)
        yield from in_range(self, "max_seconds", above=0)
        yield from in_range(self, "num_workers", "max_bad_clips", least=0)
        yield from in_range(self, "prefetch", least=1)


@dataclass(kw_only=True)
class TokenizerSection(Config):
    """Where caption tokens come from."""

    name: str | None = None
    """A Hugging Face name, a folder or a package; None takes that of ``init``, of the text
    encoder's weights, or else trains one on the captions."""

    vocab_size: int = 512
    """Size of a vocabulary that is trained here."""

    max_tokens: int | None = None
    """Longer captions are cut."""

    allow_unknown: bool = False
    """Go on where more than half of the captions are ``[UNK]`` alone to the tokenizer."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "max_tokens", least=3)


@dataclass(kw_only=True)
class CriterionSection(Config):
    """A criterion by its entry-point name, with its options."""

    name: str = "moco_atc_atm"
    """Name in the group ``atr_moco_plugin.criteria``."""

    config: dict[str, Any] = field(default_factory=dict)
    """Options of that criterion."""


@dataclass(kw_only=True)
class EvaluationSection(Config):
    """How retrieval is measured."""

    rerank_k: int = 16
    """Candidates of each query that the matching head re-ranks; 0 leaves re-ranking out."""

    batch_size: int = 64
    """Clips, captions or pairs a forward pass."""

    max_seconds: float | None = None
    """A clip is evaluated whole up to this length; None takes that of ``dataset``."""

    test_split: str | None = None
    """Split that the best checkpoint is evaluated on at the end; None takes ``test`` where there is
    one."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "rerank_k", least=0)
        yield from in_range(self, "batch_size", least=1)
        yield from in_range(self, "max_seconds", above=0)


@dataclass(kw_only=True)
class SafetySection(Config):
    """What happens when a number is not finite."""

    max_skipped_steps: int = 0
    """Steps that are not finite that are left out, with a warning each; one more stops the run."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "max_skipped_steps", least=0)


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
class TrainerSection(Config):
    """How a step is computed."""

    mixed_precision: MixedPrecision = field(default_factory=MixedPrecision)
    grad_accumulation: Accumulation = field(default_factory=Accumulation)

    max_grad_norm: float | None = None
    """Longest gradient; None does not clip."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "max_grad_norm", above=0)


@dataclass(kw_only=True)
class OptimizerSection(Config):
    """AdamW."""

    config: AdamWConfig = field(default_factory=lambda: AdamWConfig())


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

    weight_decay: float = 0.05
    """Of weight matrices, embeddings and kernels."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    """Averaging factors of the gradient and of its square."""

    eps: float = 1e-8
    """Added to the denominator."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "lr", "audio_lr", "text_lr", "temperature_lr", above=0)
        yield from in_range(self, "layer_decay", above=0, most=1)
        if len(self.betas) != 2 or not all(0 <= x < 1 for x in self.betas):
            yield f"`betas` is {self.betas}, expected two numbers from 0 to below 1."


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


@dataclass(kw_only=True)
class CommonSection(Config):
    """What is common to all parts."""

    seed: int = 2
    """Of everything that is drawn."""


@dataclass(kw_only=True)
class FinetuneConfig(Config):
    """A fine-tuning. Sections and keys are those of the recipes."""

    loop: Literal["auto", "fairseq2", "transformers"] = "auto"
    """What runs the steps: ``fairseq2``, or transformers' ``Trainer``; ``auto`` takes fairseq2
    where it is installed and the model is not a ``ClapModel``."""

    init: str = "random"
    """What it starts from, see :mod:`atr_moco_plugin.finetuning.start`."""

    model: ModelSection = field(default_factory=ModelSection)
    dataset: DatasetSection = field(default_factory=DatasetSection)
    tokenizer: TokenizerSection = field(default_factory=TokenizerSection)
    criterion: CriterionSection = field(default_factory=CriterionSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    safety: SafetySection = field(default_factory=SafetySection)
    report: bool = True
    """Write ``report/index.html`` at the end."""

    trainer: TrainerSection = field(default_factory=TrainerSection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    lr_scheduler: ScheduleSection = field(default_factory=ScheduleSection)
    regime: RegimeSection = field(default_factory=RegimeSection)
    common: CommonSection = field(default_factory=CommonSection)
