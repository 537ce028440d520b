"""The options of the recipe ``finetune``: what it prints of the keys, and the file of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

from finetune_world import prepared, stated

from atr_moco_plugin.finetuning.parts import merged
from atr_moco_plugin.finetuning.prepare import prepare
from atr_moco_plugin.io.yaml12 import load_yaml
from atr_moco_plugin.recipes.finetune import main


def test_what_is_dumped_leaves_the_choice_to_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It named the criterion and the candidates, which the plan may choose otherwise."""
    assert main(["--dump-config"]) == 0
    dumped = load_yaml(capsys.readouterr().out)
    assert dumped["criterion"]["name"] is None and dumped["evaluation"]["rerank_k"] is None
    config = prepared(tmp_path / "a").config
    again = prepare(merged(dumped, stated()), tmp_path / "b", tell=str).config
    assert again == config and config.criterion.name == "moco_atc"


def test_a_second_file_of_keys_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It took the place of the first."""
    with pytest.raises(SystemExit):
        main(["out", "--config-file", "a.yaml", "--config-file", "b.yaml"])
    assert "--config-file: is given twice" in capsys.readouterr().err
