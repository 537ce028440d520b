"""Configuration of the retrieval recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fairseq2.recipe.config import (
    CommonSection,
    CosineAnnealingLRConfig,
    GangSection,
    LRSchedulerSection,
    MixedPrecisionConfig,
    ModelSection,
    OptimizerSection,
    RegimeSection,
    SupportsStructure,
)
from fairseq2.recipe.error import RecipeError
from fairseq2.runtime.dependency import DependencyResolver
from fairseq2.utils.config import ConfigMerger
from fairseq2.utils.validation import Validatable, ValidationResult
from typing_extensions import override

from atr_moco_plugin.hosts.fairseq2.config.checks import result_of, sharded_cache, unsupported
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.init import find_source, start_from
from atr_moco_plugin.hosts.fairseq2.config.model import FAMILY, drop_options_of_replaced_parts
from atr_moco_plugin.hosts.fairseq2.config.sections import (
    CaptionTokenizerSection,
    EvaluationSection,
    RetrievalDatasetSection,
    SafetySection,
    adamw,
    default,
    open_with_decoder,
)
from atr_moco_plugin.hosts.fairseq2.config.trainer import RetrievalTrainerSection
from atr_moco_plugin.io.paths import expanded


@dataclass(kw_only=True)
class RetrievalRecipeConfig(SupportsStructure, Validatable):
    """A whole training run. Sections without a comment here are fairseq2's own."""

    init: str = "random"
    """What the weights start from: ``pretrained`` (both encoders, from ``checkpoint`` of the audio
    and ``pretrained`` of the text encoder's options), ``random`` (each part without such a source
    starts at random), or an earlier run: its output folder (the best checkpoint), one of its
    ``checkpoints/step_N`` folders or a file; or a bundle. Of a run and a bundle come the
    architecture, the towers, the head and the tokenizer; queues and temperature start anew. A file
    that lies in no checkpoint has the weights alone, and needs ``tokenizer.name``."""

    # fairseq2 takes a recipe for a training recipe because of this type hint.
    model: ModelSection = default(ModelSection, family=FAMILY, arch="base")
    dataset: RetrievalDatasetSection
    tokenizer: CaptionTokenizerSection = default(CaptionTokenizerSection)
    criterion: CriterionSection | str = default(CriterionSection, name="moco_atc_atm")
    evaluation: EvaluationSection = default(EvaluationSection)
    safety: SafetySection = default(SafetySection)
    hooks: Mapping[str, object] = default(dict, rank={})
    """Hook name (group ``atr_moco_plugin.hooks``) to its options."""

    report: bool = True
    """Write ``report/index.html`` at the end of the run."""

    gang: GangSection = default(GangSection)
    trainer: RetrievalTrainerSection = default(
        RetrievalTrainerSection, mixed_precision=MixedPrecisionConfig(mode="off")
    )
    optimizer: OptimizerSection = default(adamw)
    lr_scheduler: LRSchedulerSection = default(LRSchedulerSection, config=CosineAnnealingLRConfig())
    regime: RegimeSection = default(RegimeSection)
    common: CommonSection = default(CommonSection, no_sweep_dir=True)

    @property
    def criterion_section(self) -> CriterionSection:
        """``criterion``, also where it was given by its name alone."""
        if isinstance(self.criterion, str):
            return CriterionSection(name=self.criterion)
        return self.criterion

    @property
    def evaluated_seconds(self) -> float:
        """The longest clip that an evaluation takes whole."""
        return self.evaluation.max_seconds or self.dataset.max_seconds

    @override
    def structure(self, resolver: DependencyResolver) -> None:
        # The root is visited first, its fields afterwards.
        self.criterion = self.criterion_section
        of_recipe: dict[str, Any] = {x.name: x.default_factory for x in fields(self)}
        self.criterion.drop_options_of(of_recipe["criterion"]())
        merger = resolver.resolve(ConfigMerger)
        drop_options_of_replaced_parts(self.model, merger)
        open_with_decoder(self.dataset, merger)
        source = find_source(self.init)
        if source is not None:
            start_from(source, self.model, merger)
            if source.tokenizer is not None:
                self._take_tokenizer(str(source.tokenizer), of_recipe["tokenizer"]().name)

    def _take_tokenizer(self, name: str, of_recipe: str | None) -> None:
        """That of ``init``: another one would give the text tower other ids than it knows."""
        stated = self.tokenizer.name
        own = Path(name).resolve()
        if stated not in (None, of_recipe) and expanded(stated, "tokenizer.name").resolve() != own:
            raise RecipeError(
                f"`tokenizer.name` is {stated}, but `init={self.init}` was trained with its own "
                "tokenizer, and another one would give it other ids: leave it out."
            )
        self.tokenizer.name = name

    @override
    def validate(self) -> ValidationResult:
        result = result_of(
            unsupported(self.gang, self.trainer), sharded_cache(self.dataset, self.trainer)
        )
        schedule, steps = self.lr_scheduler.config, self.regime.num_steps
        if isinstance(schedule, CosineAnnealingLRConfig) and steps is not None:
            # fairseq2 would divide by zero in the last step; a run that ends within its warm-up is
            # odd, but what one does to try things out.
            if schedule.cycle_len is None and schedule.num_warmup_steps == steps:
                result.add_error(
                    f"`lr_scheduler.config.num_warmup_steps` is all of `regime.num_steps`, "
                    f"{steps}, and leaves the schedule no step; lower it."
                )
        return result
