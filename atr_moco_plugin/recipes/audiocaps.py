"""``python -m atr_moco_plugin.recipes.audiocaps OUT --config dataset.config_overrides.root=...``.

The paper's pipeline on AudioCaps, for one GPU: BEATs-base and BERT-base from their pretrained
weights, momentum queues, contrastive and matching loss. Which value comes from where is in
``docs/reproduce.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairseq2.recipe.config import LRSchedulerSection, ModelSection, RegimeSection

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.model import FAMILY
from atr_moco_plugin.hosts.fairseq2.config.recipe import RetrievalRecipeConfig
from atr_moco_plugin.hosts.fairseq2.config.sections import (
    CaptionTokenizerSection,
    EvaluationSection,
    RetrievalDatasetSection,
    best_by_r_sum,
    cosine,
    default,
)
from atr_moco_plugin.hosts.fairseq2.config.trainer import RetrievalTrainerSection, bf16

BERT = "bert-base-uncased"


@dataclass(kw_only=True)
class AudiocapsRecipeConfig(RetrievalRecipeConfig):
    """About ten epochs of the 49,838 training clips, 64 a step.

    The user sets ``model.config_overrides.audio.config.checkpoint``, where the BEATs weights lie.
    """

    init: str = "pretrained"
    model: ModelSection = default(
        ModelSection,
        family=FAMILY,
        arch="base",
        config_overrides={"text": {"config": {"pretrained": BERT}}},
    )
    dataset: RetrievalDatasetSection = default(
        RetrievalDatasetSection,
        family="audiocaps",
        config_overrides={},
        batch_size=64,
        max_seconds=10.0,
        num_workers=8,
        max_bad_clips=100,
    )
    tokenizer: CaptionTokenizerSection = default(CaptionTokenizerSection, name=BERT, max_tokens=64)
    criterion: CriterionSection | str = default(
        CriterionSection,
        name="moco_atc_atm",
        config={"queue_size": 16_384, "alpha_warmup_steps": 800},
    )
    evaluation: EvaluationSection = default(EvaluationSection, rerank_k=128)
    trainer: RetrievalTrainerSection = default(bf16)
    lr_scheduler: LRSchedulerSection = default(cosine, 800)
    regime: RegimeSection = default(best_by_r_sum, 8_000, 800, 50)


if __name__ == "__main__":
    run_recipe(AudiocapsRecipeConfig)
