"""A fine-tuning on Trainer that learns from another one."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

from finetune_world import prepared

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.finetune.loop import run


def test_a_run_teaches_a_second_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    line = "does not say on which data it was trained"
    assert line not in "".join(capsys.readouterr())
    alone = shutil.copytree(bundle, tmp_path / "shared" / "models" / "bundle")
    run(prepared(tmp_path / "third", criterion__config__teachers=[str(alone)], **options))
    assert "".join(capsys.readouterr()).count(line) == 1
