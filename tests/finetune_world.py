"""A small fine-tuning for the tests: the embedded data set and a model of some thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atr_moco_plugin.finetuning.choices import flattened, nested
from atr_moco_plugin.finetuning.prepare import Prepared, prepare

OPTIONS: dict[str, Any] = {
    "init": "random",
    "loop": "transformers",
    "report": False,
    "model.arch": "toy",
    "model.config_overrides.embed_dim": 16,
    "model.config_overrides.audio.config.encoder_layers": 1,
    "model.config_overrides.audio.config.encoder_embed_dim": 32,
    "model.config_overrides.audio.config.encoder_ffn_embed_dim": 32,
    "model.config_overrides.text.config.num_hidden_layers": 2,
    "model.config_overrides.text.config.hidden_size": 32,
    "model.config_overrides.text.config.intermediate_size": 32,
    "dataset.family": "toy",
    "dataset.config_overrides.num_train": 12,
    "dataset.config_overrides.num_valid": 4,
    "dataset.config_overrides.num_test": 3,
    "dataset.config_overrides.cache": True,
    "dataset.batch_size": 4,
    "dataset.max_seconds": 1.0,
    "criterion.config.queue_size": 8,
    "regime.num_steps": 6,
    "regime.validate_every_n_steps": 3,
    "regime.checkpoint_every_n_steps": 3,
    "regime.publish_metrics_every_n_steps": 1,
}


def stated(**changes: Any) -> dict[str, Any]:
    """Keys as a user sets them, nested. Changes have ``__`` for dots."""
    changed = flattened({name.replace("__", "."): value for name, value in changes.items()})
    kept = {
        key: value
        for key, value in OPTIONS.items()
        # Options of another data set do not go with its name.
        if "dataset.family" not in changed or not key.startswith("dataset.config_overrides")
    }
    return nested({**kept, **changed})


def prepared(out: Path, **changes: Any) -> Prepared:
    """The run before its first step."""
    return prepare(stated(**changes), out, tell=lambda text: None)
