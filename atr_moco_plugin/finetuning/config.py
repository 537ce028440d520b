"""The configuration of a fine-tuning, whatever the loop: the keys of the recipes, without fairseq2.

What is None is chosen from the data and the memory, see :mod:`atr_moco_plugin.finetuning.plan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.finetuning.data_sections import (
    DatasetSection,
    ModelSection,
    TokenizerSection,
)
from atr_moco_plugin.finetuning.step_sections import (
    OptimizerSection,
    RegimeSection,
    ScheduleSection,
    TrainerSection,
)


@dataclass(kw_only=True)
class CriterionOptions(Config):
    """A criterion by its entry-point name, with its options."""

    name: str | None = None
    """Name in the group ``atr_moco_plugin.criteria``."""

    config: dict[str, Any] = field(default_factory=dict)
    """Options of that criterion."""


@dataclass(kw_only=True)
class EvaluationOptions(Config):
    """How retrieval is measured."""

    rerank_k: int | None = None
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
class SafetyOptions(Config):
    """What happens when a number is not finite."""

    max_skipped_steps: int = 0
    """Steps that are not finite that are left out, with a warning each; one more stops the run."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "max_skipped_steps", least=0)


@dataclass(kw_only=True)
class CommonSection(Config):
    """What is common to all parts."""

    seed: int = 2
    """Of everything that is drawn."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "seed", least=0, below=2**32)


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
    criterion: CriterionOptions = field(default_factory=CriterionOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    safety: SafetyOptions = field(default_factory=SafetyOptions)
    report: bool = True
    """Write ``report/index.html`` at the end."""

    trainer: TrainerSection = field(default_factory=TrainerSection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    lr_scheduler: ScheduleSection = field(default_factory=ScheduleSection)
    regime: RegimeSection = field(default_factory=RegimeSection)
    common: CommonSection = field(default_factory=CommonSection)
