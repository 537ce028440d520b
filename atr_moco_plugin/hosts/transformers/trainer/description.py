"""What builds a checkpoint's model again, written beside its weights for ``export``.

``Trainer`` saves the weights of a module and nothing that says what module it was. A folder
``retrieval`` in each checkpoint has ``model.json``, which is the ``config.json`` of a bundle to be,
and the tokenizer and the feature extractor.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import Trainer

from atr_moco_plugin.hosts.transformers.data.collator import ClapCollator
from atr_moco_plugin.hosts.transformers.model.clap_trainer_model import ClapTrainerModel
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.io.atomic import new_folder
from atr_moco_plugin.model import RetrievalModel, built_config
from atr_moco_plugin.retriever.bundle import FEATURE_EXTRACTOR, TOKENIZER, packages_of
from atr_moco_plugin.retriever.clap import clap_options

FOLDER, FILE = "retrieval", "model.json"


def write_description(trainer: Trainer, checkpoint: Path) -> None:
    """Write the folder ``retrieval`` of a checkpoint; it is there whole or not at all.

    Nothing is written for a model that no name stands for, such as towers put together by hand.

    Args:
        trainer: its model is a
            :class:`~atr_moco_plugin.hosts.transformers.model.trainer_model.TrainerModel`.
        checkpoint: the folder ``checkpoint-N``, which is left alone where it is not there.
    """
    content = describe(trainer)
    if content is None or not checkpoint.is_dir():
        return
    with new_folder(checkpoint / FOLDER, replace=True) as new:
        (new / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for name, part in _processors(trainer).items():
            if hasattr(part, "save_pretrained"):
                part.save_pretrained(new / name)


def describe(trainer: Trainer) -> dict[str, Any] | None:
    """Fields of a :class:`~atr_moco_plugin.retriever.BundleConfig` as far as a training knows them;
    None for a model that no name stands for."""
    model: Any = trainer.model
    assert isinstance(model, TrainerModel), "MocoCallback has checked it"
    parts: Any = model.criterion.model
    named = getattr(parts, "config", None)
    known: dict[str, Any]
    if isinstance(model, ClapTrainerModel):
        head = getattr(parts.head, "config", None)
        known = {"kind": "clap", "model": clap_options(model.clap.config, head)}
    elif isinstance(parts, RetrievalModel) and named is not None:
        config = built_config(named, parts)
        known = {
            "kind": "retrieval",
            "model": asdict(config),
            "sample_rate": parts.sample_rate,
            "packages": packages_of(config),
        }
    else:
        return None
    if isinstance(trainer.data_collator, ClapCollator):
        extractor = trainer.data_collator.feature_extractor
        known["sample_rate"] = int(extractor.sampling_rate)
        known["window_seconds"] = float(extractor.max_length_s)
        known["max_tokens"] = trainer.data_collator.max_tokens
    known |= getattr(trainer, "described", {})  # of a loop that has no collator
    data = getattr(trainer.train_dataset, "name", None)
    known["origin"] = {
        "host": "transformers",
        "criterion": model.criterion_name,
        "seed": trainer.args.seed,
        "data": data if isinstance(data, str) else None,
    }
    return known


def _processors(trainer: Trainer) -> dict[str, Any]:
    """Tokenizer and feature extractor: the trainer's own ``processors``, the collator's, else those
    of ``processing_class``."""
    own: dict[str, Any] | None = getattr(trainer, "processors", None)
    if own is not None:
        return own
    source: Any = trainer.data_collator
    if not isinstance(source, ClapCollator):
        source = getattr(trainer, "processing_class", None)
        if hasattr(source, "get_vocab"):  # a tokenizer itself
            return {TOKENIZER: source}
    return {
        TOKENIZER: getattr(source, "tokenizer", None),
        FEATURE_EXTRACTOR: getattr(source, "feature_extractor", None),
    }
