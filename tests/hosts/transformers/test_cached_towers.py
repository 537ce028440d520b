"""A fine-tuning under ``Trainer`` whose frozen encoders are run once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from atr_moco_plugin.recipes.finetune import main

OPTIONS = [
    "dataset.family=toy", "dataset.config_overrides.num_train=24",
    "dataset.config_overrides.num_valid=6", "dataset.config_overrides.num_test=6",
    "dataset.max_seconds=4.0", "dataset.batch_size=8", "init=random", "model.arch=toy",
    "loop=transformers", "report=false", "regime.num_steps=2", "evaluation.rerank_k=3",
    "criterion.name=moco_atc_atm", "model.config_overrides.audio.freeze=all",
    "model.config_overrides.text.freeze=all",
]  # fmt: skip


def losses(out: Path) -> list[float]:
    lines = (out / "metrics" / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["ATC Loss"] for line in lines]


@pytest.mark.slow
def test_a_matching_head_trains_on_cached_tokens(tmp_path: Path) -> None:
    cache = f"dataset.cache_embeddings={tmp_path / 'cache'}"
    assert main([str(tmp_path / "plain"), "--config", *OPTIONS]) == 0
    assert main([str(tmp_path / "cached"), "--config", *OPTIONS, cache]) == 0
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    assert (tmp_path / "cache" / "clips-train" / "index.json").exists()
    result = json.loads((tmp_path / "cached" / "retrieval.json").read_text())
    assert result["splits"]["valid"]["dual"] and (tmp_path / "cached" / "bundle").is_dir()


def test_crops_without_a_cache_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "run"), "--config", *OPTIONS, "dataset.cache_crops=4"]) == 2
    assert "`cache_crops` is 4, but nothing is cached" in capsys.readouterr().err
