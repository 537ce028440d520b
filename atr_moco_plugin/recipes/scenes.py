"""``python -m atr_moco_plugin.recipes.scenes OUT --config dataset.config_overrides.root=FOLDER``.

As the recipe of the embedded data set, on scenes of real recordings: those of ESC-50, or of any
folder with a folder of recordings for each class.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairseq2.recipe.config import RegimeSection

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config.sections import (
    CaptionTokenizerSection,
    RetrievalDatasetSection,
    best_by_r_sum,
    default,
)
from atr_moco_plugin.recipes.toy import ToyRecipeConfig


@dataclass(kw_only=True)
class ScenesRecipeConfig(ToyRecipeConfig):
    """Both encoders from scratch on sequences and mixtures of recordings.

    The user sets ``dataset.config_overrides.root``, the folder of the recordings.
    """

    dataset: RetrievalDatasetSection = default(
        RetrievalDatasetSection,
        family="scenes",
        config_overrides={"cache": True},
        batch_size=32,
        max_seconds=5.0,
    )
    tokenizer: CaptionTokenizerSection = default(
        CaptionTokenizerSection, vocab_size=512, max_tokens=64
    )
    regime: RegimeSection = default(best_by_r_sum, 800, 200, 20)


if __name__ == "__main__":
    run_recipe(ScenesRecipeConfig)
