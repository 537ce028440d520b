"""A fine-tuning on Trainer that learns from another one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

from finetune_world import prepared

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.finetune.loop import run


def test_a_run_teaches_a_second_one(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    bundle = run(prepared(first, criterion__name="moco_atc"))
    options = {"criterion__name": "moco_atc", "regime__num_steps": 3}
    run(prepared(second, criterion__config__teachers=[str(first)], **options))
    (record, *_) = map(json.loads, (second / "metrics" / "train.jsonl").read_text().splitlines())
    assert record["Teacher Loss"] > 0
    assert len(list((second / "teachers").iterdir())) == 1
    with pytest.raises(InputError, match="was trained on other data than toy"):
        run(prepared(tmp_path / "other", dataset__config_overrides__seed=5,
                     criterion__config__teachers=[str(first)], **options))  # fmt: skip
    # A bundle does not say what it was trained on.
    run(prepared(tmp_path / "third", criterion__config__teachers=[str(bundle)], **options))
