from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.run_folder import check_run_folder, settle_folder
from atr_moco_plugin.io.yaml12 import load_yaml


def test_how_a_batch_is_computed_may_change_in_a_run_and_what_it_is_may_not(tmp_path: Path) -> None:
    config = FinetuneConfig(loop="transformers")
    settle_folder(tmp_path, config)
    (tmp_path / "checkpoint-4").mkdir()
    chunks = replace(config.trainer.grad_cache, chunk_size=4)
    chunked = replace(config, trainer=replace(config.trainer, grad_cache=chunks))
    settle_folder(tmp_path, chunked)
    settle_folder(tmp_path, config)
    larger = replace(config.dataset, batch_size=7)
    other = replace(config, dataset=larger)
    with pytest.raises(InputError, match="dataset.batch_size was"):
        settle_folder(tmp_path, other)


def test_a_name_that_looks_like_a_number_stays_a_name(tmp_path: Path) -> None:
    config = FinetuneConfig(loop="transformers")
    config = replace(config, dataset=replace(config.dataset, train_split="1e3"))
    settle_folder(tmp_path, config)
    assert load_yaml((tmp_path / "config.yaml").read_bytes())["dataset"]["train_split"] == "1e3"
    (tmp_path / "checkpoint-4").mkdir()
    settle_folder(tmp_path, config)


def test_a_folder_that_is_only_looked_at_stays_as_it_is(tmp_path: Path) -> None:
    config = FinetuneConfig(loop="transformers")
    check_run_folder(tmp_path, config)
    assert not list(tmp_path.iterdir())
    settle_folder(tmp_path, config)
    (tmp_path / "checkpoint-4").mkdir()
    before = (tmp_path / "config.yaml").read_bytes()
    check_run_folder(tmp_path, replace(config, report=False))
    with pytest.raises(InputError, match="init was random and is other"):
        check_run_folder(tmp_path, replace(config, init="other"))
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_an_empty_section_is_no_setting_beside_its_options(tmp_path: Path) -> None:
    """A run that took a temperature of its start, which a later version leaves out."""
    config = FinetuneConfig(loop="transformers")
    first = replace(config, criterion=replace(config.criterion, config={"temperature": 0.03}))
    settle_folder(tmp_path, first)
    (tmp_path / "checkpoint-4").mkdir()
    message = r"settings \(criterion.config.temperature was 0.03 and is None\)"
    with pytest.raises(InputError, match=message):
        check_run_folder(tmp_path, config)
    check_run_folder(tmp_path, first)


def test_a_nan_is_no_other_value(tmp_path: Path) -> None:
    config = FinetuneConfig(loop="transformers")
    options = {"config_overrides": {"x": float("nan"), "y": {}}}
    config = replace(config, dataset=replace(config.dataset, **options))
    settle_folder(tmp_path, config)
    (tmp_path / "checkpoint-4").mkdir()
    check_run_folder(tmp_path, config)
    changed = replace(config, dataset=replace(config.dataset, config_overrides={"y": 1}))
    with pytest.raises(InputError, match="config_overrides.y was {} and is 1"):
        check_run_folder(tmp_path, changed)


def test_an_option_that_came_after_a_run_began_is_its_default(tmp_path: Path) -> None:
    """A run of an earlier release was told to take `None`, which no option takes."""
    config = FinetuneConfig(loop="transformers")
    settle_folder(tmp_path, config)
    (tmp_path / "checkpoint-4").mkdir()
    file = tmp_path / "config.yaml"
    written = file.read_text()
    file.write_text("".join(x for x in written.splitlines(True) if "head_lr_scale" not in x))
    assert file.read_text() != written
    check_run_folder(tmp_path, config)
    scaled = replace(config.optimizer.config, head_lr_scale=0.5)
    other = replace(config, optimizer=replace(config.optimizer, config=scaled))
    with pytest.raises(InputError, match="head_lr_scale was 1.0 and is 0.5"):
        check_run_folder(tmp_path, other)
    file.write_text("loop: transformers\n")  # nor has it whole sections
    check_run_folder(tmp_path, config)
