"""``python -m atr_moco_plugin.recipes.clotho OUT --config dataset.config_overrides.root=...``.

As the recipe for AudioCaps, on Clotho's longer clips; ``init=RUN`` starts from a run on AudioCaps.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairseq2.recipe.config import LRSchedulerSection, RegimeSection

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.config.sections import (
    RetrievalDatasetSection,
    best_by_r_sum,
    cosine,
    default,
)
from atr_moco_plugin.hosts.fairseq2.config.trainer import RetrievalTrainerSection, bf16
from atr_moco_plugin.recipes.audiocaps import AudiocapsRecipeConfig


@dataclass(kw_only=True)
class ClothoRecipeConfig(AudiocapsRecipeConfig):
    """Ten epochs of the 19,195 training pairs, 64 a step in four batches of 16."""

    dataset: RetrievalDatasetSection = default(
        RetrievalDatasetSection,
        family="clotho",
        config_overrides={},
        batch_size=16,
        max_seconds=30.0,  # no clip of Clotho is longer
        captions="all",
        num_workers=8,
        max_bad_clips=100,
    )
    criterion: CriterionSection | str = default(
        CriterionSection,
        name="moco_atc_atm",
        config={"queue_size": 4_096, "alpha_warmup_steps": 300},
    )
    trainer: RetrievalTrainerSection = default(bf16, accumulate=4)
    lr_scheduler: LRSchedulerSection = default(cosine, 300)
    regime: RegimeSection = default(best_by_r_sum, 3_000, 300, 50)


if __name__ == "__main__":
    run_recipe(ClothoRecipeConfig)
