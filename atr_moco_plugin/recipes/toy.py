"""``python -m atr_moco_plugin.recipes.toy OUT``: the embedded data set, minutes on two cores."""

from __future__ import annotations

from dataclasses import dataclass

from fairseq2.recipe.config import (
    LRSchedulerSection,
    ModelSection,
    OptimizerSection,
    RegimeSection,
)

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.model import FAMILY
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.config.sections import (
    CaptionTokenizerSection,
    EvaluationSection,
    RetrievalDatasetSection,
    adamw,
    best_by_r_sum,
    cosine,
    default,
)


@dataclass(kw_only=True)
class ToyRecipeConfig(RetrievalRecipeConfig):
    """Both encoders from scratch on synthesised sound scenes."""

    model: ModelSection = default(ModelSection, family=FAMILY, arch="toy")
    dataset: RetrievalDatasetSection = default(
        RetrievalDatasetSection,
        family="toy",
        config_overrides={"cache": True},
        batch_size=32,
        max_seconds=4.0,
    )
    tokenizer: CaptionTokenizerSection = default(
        CaptionTokenizerSection, vocab_size=512, max_tokens=48
    )
    criterion: CriterionSection | str = default(
        CriterionSection,
        name="moco_atc_atm",
        # From random weights and in few steps: a shorter memory than the criterion's defaults.
        config={
            "queue_size": 512,
            "queue_warmup_steps": "auto",
            "columns": "both",
            "momentum": 0.95,
            "alpha_warmup_steps": 400,
            "temperature_min": 0.05,
            "atm_every": 2,
        },
    )
    evaluation: EvaluationSection = default(EvaluationSection, rerank_k=16, test_split="test")
    # The temperature moves slower than the weights: one that falls early makes the hard negatives
    # too hard for a matching head that has learned nothing yet. The head begins when the schedule
    # has brought the rates down, and has few steps.
    optimizer: OptimizerSection = default(
        adamw, lr=1e-3, head_lr_scale=10.0, temperature_lr=3e-4, betas=(0.9, 0.98)
    )
    lr_scheduler: LRSchedulerSection = default(cosine, 50)
    regime: RegimeSection = default(best_by_r_sum, 800, 200, 20)


if __name__ == "__main__":
    run_recipe(ToyRecipeConfig)
