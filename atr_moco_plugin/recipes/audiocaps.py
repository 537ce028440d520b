"""``python -m atr_moco_plugin.recipes.audiocaps OUT --config dataset.config_overrides.root=...``.

The paper's pipeline on AudioCaps, for one GPU: BEATs-base and BERT-base from their pretrained
weights, momentum queues, contrastive and matching loss. Which value comes from where is in
``docs/reproduce.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairseq2.recipe.config import (
    LRSchedulerSection,
    ModelSection,
    RegimeSection,
    TrainerSection,
)

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.recipe import (
    CaptionTokenizerSection,
    EvaluationSection,
    RetrievalDatasetSection,
    RetrievalRecipeConfig,
    best_by_r_sum,
    bf16,
    cosine,
)
from atr_moco_plugin.hosts.fairseq2.training.model import FAMILY

BERT = "bert-base-uncased"


def pretrained_model() -> ModelSection:
    """BEATs-base and BERT-base. Where the BEATs checkpoint lies is for the user to say."""
    overrides = {"text": {"config": {"pretrained": BERT}}}
    return ModelSection(family=FAMILY, arch="base", config_overrides=overrides)


@dataclass(kw_only=True)
class AudiocapsRecipeConfig(RetrievalRecipeConfig):
    """About ten epochs of the 49,838 training clips, 64 a step."""

    init: str = "pretrained"
    model: ModelSection = field(default_factory=pretrained_model)
    dataset: RetrievalDatasetSection = field(
        default_factory=lambda: RetrievalDatasetSection(
            family="audiocaps",
            config_overrides={},
            batch_size=64,
            max_seconds=10.0,
            num_workers=8,
            max_bad_clips=100,
        )
    )
    tokenizer: CaptionTokenizerSection = field(
        default_factory=lambda: CaptionTokenizerSection(name=BERT, max_tokens=64)
    )
    criterion: CriterionSection | str = field(
        default_factory=lambda: CriterionSection(
            name="moco_atc_atm", config={"queue_size": 16_384, "alpha_warmup_steps": 800}
        )
    )
    evaluation: EvaluationSection = field(default_factory=lambda: EvaluationSection(rerank_k=128))
    trainer: TrainerSection = field(default_factory=bf16)
    lr_scheduler: LRSchedulerSection = field(default_factory=lambda: cosine(800))
    regime: RegimeSection = field(default_factory=lambda: best_by_r_sum(8_000, 800, 50))


if __name__ == "__main__":
    run_recipe(AudiocapsRecipeConfig)
