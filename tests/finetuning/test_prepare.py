"""What a user sets, what a loop knows, and the plan that a folder keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_world import OPTIONS, prepared, stated
from sound_folders import write_sound
from tiny_bundle import make_public_clap

from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import nested
from atr_moco_plugin.finetuning.command_line import read_stated
from atr_moco_plugin.finetuning.keys import read_config
from atr_moco_plugin.finetuning.prepare import prepare
from atr_moco_plugin.finetuning.saved_plan import PLAN_FILE


def test_pairs_are_in_front_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    content = "dataset:\n  batch_size: 8\n  captions: all\n"
    file.write_text(content + "trainer: {mixed_precision: {mode: off}}\n")
    tree = read_stated(file, ["dataset.batch_size=16", "optimizer.config.lr=1e-4", "report=false"])
    assert tree["dataset"] == {"batch_size": 16, "captions": "all"}
    assert tree["optimizer"]["config"]["lr"] == 1e-4 and tree["report"] is False
    assert tree["trainer"]["mixed_precision"]["mode"] == "off"  # no boolean


@pytest.mark.parametrize("order", [1, -1])
def test_the_name_of_a_criterion_goes_with_its_options(order: int, tmp_path: Path) -> None:
    pairs = ["criterion=atc", "criterion.config.positives=pair"]
    expected = {"name": "atc", "config": {"positives": "pair"}}
    assert read_stated(None, pairs[::order])["criterion"] == expected
    file = tmp_path / "mine.yaml"
    file.write_text("criterion: atc\n")
    assert read_stated(file, pairs[1:])["criterion"] == expected


def test_a_key_in_two_pairs_is_refused_where_the_values_differ() -> None:
    """The last one was taken."""
    pairs = ["dataset.batch_size=16", "regime.num_steps=5", "dataset.batch_size=8"]
    with pytest.raises(InputError, match="`dataset.batch_size` is set twice, to 16 and to 8"):
        read_stated(None, pairs)
    assert read_stated(None, [pairs[0], pairs[0]]) == {"dataset": {"batch_size": 16}}


@pytest.mark.parametrize("pair", ["dataset.batch_size", "=8", "a.b=[1"])
def test_what_is_no_key_with_a_value_is_refused(pair: str) -> None:
    with pytest.raises(InputError):
        read_stated(None, [pair])


def test_keys_of_fairseq2_are_kept_apart() -> None:
    config, other = read_config(
        {"criterion": "atc", "regime": {"num_steps": 5, "num_data_epochs": 2}, "gang": {"x": 1}}
    )
    assert config.criterion.name == "atc" and config.regime.num_steps == 5
    assert other == {"regime": {"num_data_epochs": 2}, "gang": {"x": 1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset__batchsize": 4}, "`dataset.batchsize` is not.*mean `dataset.batch_size`"),
        ({"dataset__batch_size": 1}, "`batch_size` is 1, expected 2 or more"),
        ({"loop": "jax"}, "`loop` is 'jax'"),
        ({"dataset__config_overrides__decoder": "torchcodec"}, "set `dataset.decoder` alone"),
        ({"optimizer__config__betas": [0.9]}, "expected two numbers"),
        ({"optimizer__config__weight_decay": -0.1}, "`weight_decay` is -0.1, expected 0 or more"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, **changes)


@pytest.mark.parametrize(
    "key", [{"dataset.family": "toy"}, {"dataset.config_overrides.root": "sounds"}]
)
def test_a_data_set_is_not_named_where_the_pairs_are_in_memory(
    tmp_path: Path, key: dict[str, str]
) -> None:
    options = {name: x for name, x in OPTIONS.items() if not name.startswith("dataset.")}
    data = open_toy(ToyConfig(num_train=12, num_valid=4, num_test=3))
    with pytest.raises(InputError, match="`dataset.*but the pairs are in memory"):
        prepare({**options, **key}, tmp_path / "out", dataset=data, tell=str)
    assert not (tmp_path / "out").exists()
    # What `--dump-config` prints says nothing.
    plain = {"dataset": {"family": "folder", "config_overrides": {}}, "dataset.max_seconds": 1.0}
    ready = prepare({**options, **plain}, tmp_path / "out", dataset=data, tell=str)
    assert ready.config.dataset.max_seconds == 1.0


def test_evaluated_clips_are_no_longer_than_the_model_takes(tmp_path: Path) -> None:
    start = {"init": str(make_public_clap(tmp_path / "clap")), "evaluation.max_seconds": 2}
    options = {key: value for key, value in OPTIONS.items() if not key.startswith("model.")}
    with pytest.raises(InputError, match="`evaluation.max_seconds` is 2, .* 1 s at most"):
        prepare(nested({**options, **start}), tmp_path / "out", tell=lambda text: None)


def test_the_same_command_takes_the_plan_of_its_folder(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    file = tmp_path / PLAN_FILE
    plan = json.loads(file.read_text())
    assert plan["stated"] == json.loads(json.dumps(stated()))
    assert all(choice["reason"] for choice in plan["choices"])
    for choice in plan["choices"]:
        if choice["key"] == "optimizer.config.lr":
            choice["value"] = 0.123  # as if the machine had been another one
    file.write_text(json.dumps(plan))
    again = prepared(tmp_path)
    assert again.config.optimizer.config.lr == 0.123
    assert again.config.regime == first.config.regime
    other = prepared(tmp_path, common__seed=5)  # another command: another plan
    assert other.config.optimizer.config.lr == first.config.optimizer.config.lr


def test_a_plan_is_shown_again(tmp_path: Path) -> None:
    told: list[list[str]] = [[], []]
    for lines in told:
        prepare(stated(), tmp_path, tell=lines.append)
    assert all("optimizer.config.lr" in lines[-1] for lines in told)


def test_a_plan_of_other_data_is_made_anew_before_a_run_has_begun(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    file = tmp_path / PLAN_FILE
    plan = json.loads(file.read_text())
    plan["facts"]["clips"] -= 1  # a sound more has come since
    for choice in plan["choices"]:
        if choice["key"] == "optimizer.config.lr":
            choice["value"] = 0.123
    file.write_text(json.dumps(plan))
    assert prepared(tmp_path).config == first.config
    assert json.loads(file.read_text())["facts"]["clips"] == plan["facts"]["clips"] + 1


def test_the_plan_of_a_run_that_has_begun_stays(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    file = tmp_path / PLAN_FILE
    plan = json.loads(file.read_text())
    for choice in plan["choices"]:
        if choice["key"] == "optimizer.config.lr":
            choice["value"] = 0.123  # as if the machine had been another one
    file.write_text(json.dumps(plan))
    (tmp_path / "checkpoint-3").mkdir()
    before = file.read_text()
    changed = prepared(tmp_path, report=True, lr_scheduler__config__num_warmup_steps=2)
    assert changed.config.optimizer.config.lr == 0.123
    assert changed.config.lr_scheduler.config.num_warmup_steps == 2
    assert changed.config.regime == first.config.regime
    assert file.read_text() == before  # a command that is refused later changes nothing


@pytest.mark.parametrize(("steps", "every"), [(230, 23), (500, 50), (400, 2), (1000, 100)])
def test_figures_are_published_with_each_checkpoint(tmp_path: Path, steps: int, every: int) -> None:
    chosen = stated(regime__num_steps=steps)
    chosen["regime"] = {"num_steps": steps, "validate_every_n_steps": every}
    regime = prepare(chosen, tmp_path, tell=str).config.regime
    publish, saved = regime.publish_metrics_every_n_steps, regime.checkpoint_every_n_steps
    assert publish and saved and publish <= 20
    assert every % publish == 0 and saved % publish == 0


def test_the_preset_has_keys_that_every_loop_knows() -> None:
    preset = Path(__file__).parents[2] / "recipes/finetune.yaml"
    config, other = read_config(read_stated(preset, []))
    assert config.loop == "auto" and config.dataset.family == "folder"
    assert not other


def test_the_preset_and_what_is_null_leave_the_choice_to_the_plan(tmp_path: Path) -> None:
    for number in range(20):
        write_sound(tmp_path / "sounds" / "ab"[number % 2] / f"{number}.wav", number)
    keys = ["loop=transformers", f"dataset.config_overrides.root={tmp_path / 'sounds'}"]
    keys += [f"{key}={value}" for key, value in OPTIONS.items() if key.startswith("model.")]
    preset = Path(__file__).parents[2] / "recipes/finetune.yaml"
    out = tmp_path / "out"
    first = prepare(read_stated(preset, keys), out, tell=str).config
    assert first.regime.num_steps and first.dataset.batch_size and first.regime.score_metric
    nulls = ["optimizer.config.lr=null", "criterion.config.momentum=null", "criterion.name=null"]
    nulls += ["evaluation.rerank_k=null", "criterion.config.temperature=null"]
    nulls += ["model.config_overrides.audio.freeze=null", "model.config_overrides.head=null"]
    (out / "checkpoint-3").mkdir()  # the values of a run that has begun stay, too
    again = prepare(read_stated(None, [*keys, "init=random", *nulls]), out, tell=str).config
    assert again.regime == first.regime and again.optimizer == first.optimizer
    assert again.criterion == first.criterion and again.evaluation == first.evaluation
