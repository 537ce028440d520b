"""Runs of the toy recipe in miniature, through its command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = [
    "model.config_overrides.embed_dim=12",
    "model.config_overrides.audio.config.embed_dim=16",
    "model.config_overrides.audio.config.encoder_layers=1",
    "model.config_overrides.audio.config.encoder_embed_dim=24",
    "model.config_overrides.audio.config.encoder_ffn_embed_dim=32",
    "model.config_overrides.audio.config.encoder_attention_heads=2",
    "model.config_overrides.audio.config.conv_pos=8",
    "model.config_overrides.audio.config.conv_pos_groups=2",
    "model.config_overrides.text.config.hidden_size=20",
    "model.config_overrides.text.config.num_hidden_layers=1",
    "model.config_overrides.text.config.num_attention_heads=2",
    "model.config_overrides.text.config.intermediate_size=24",
    "dataset.config_overrides.num_train=30",
    "dataset.config_overrides.num_valid=6",
    "dataset.config_overrides.num_test=6",
    "dataset.batch_size=8",
    "dataset.max_seconds=1.0",
    "evaluation.rerank_k=3",
    "report=false",
    "regime.num_steps=4",
    "regime.validate_every_n_steps=2",
    "regime.checkpoint_every_n_steps=2",
    "regime.publish_metrics_every_n_steps=1",
    "regime.keep_best_n_checkpoints=null",
]
Run = Callable[..., int]


@pytest.fixture(scope="session")
def tiny_options() -> list[str]:
    return list(TINY)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the toy recipe with arguments; returns its exit status."""
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    # Without it an extension that fails to register only warns.
    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")

    def call(out: Path, *config: str, more: tuple[str, ...] = ()) -> int:
        arguments = ["recipe", str(out), "--no-rich", *more, "--config", *TINY, *config]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            run_recipe(ToyRecipeConfig)
        except SystemExit as ex:
            return int(ex.code or 0)
        return 0

    return call
