from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.study.plan import (
    OVERRIDES,
    RECIPE,
    Run,
    StudyConfig,
    check_folder,
    plan,
    read_yaml,
    write_yaml,
)


def test_every_combination_is_a_run_named_by_the_lists_that_are_given() -> None:
    config = StudyConfig(queue_sizes=[8, 0], seeds=[3, 4], config={"regime": {"num_steps": 2}})
    runs = plan(config)
    assert [run.name for run in runs] == ["q8_s3", "q0_s3", "q8_s4", "q0_s4"]
    assert runs[2].overrides == {
        "regime": {"num_steps": 2},
        "criterion": {"config": {"queue_size": 8}},
        "common": {"seed": 4},
    }
    assert config.config == {"regime": {"num_steps": 2}}

    more = StudyConfig(queue_sizes=[8], seeds=[0], momenta=[0.9, 1], positives=["clip"])
    assert [run.name for run in plan(more)] == ["q8_s0_m0.9_pclip", "q8_s0_m1_pclip"]
    options = {"queue_size": 8, "momentum": 0.9, "positives": "clip"}
    assert plan(more)[0].overrides["criterion"]["config"] == options
    near = StudyConfig(queue_sizes=[8], seeds=[0], momenta=[0.99999901, 0.99999902])
    assert len({run.name for run in plan(near)}) == 2  # they had one folder


def test_a_queue_that_grows_is_one_more_size() -> None:
    config = StudyConfig(recipe="scenes", queue_sizes=[8], seeds=[0, 1], auto=True)
    runs = plan(config)
    assert [run.name for run in runs] == ["q8_s0", "qauto_s0", "q8_s1", "qauto_s1"]
    assert runs[1].overrides["criterion"]["config"] == {"queue_size": "auto"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"queue_sizes": []}, "`queue_sizes` is empty"),
        ({"seeds": []}, "`seeds` is empty"),
        ({"seeds": [1, 1]}, "`seeds` has a value twice"),
        ({"queue_sizes": [4, -1]}, "`queue_sizes` has -1"),
        ({"queue_sizes": ["auto"]}, "queue_sizes"),
        ({"positives": ["clips"]}, "'clips'"),
        ({"jobs": -1}, "`jobs` is -1"),
        ({"threads": 0}, "`threads` is 0"),
        ({"recipe": "esc5"}, "one of toy, scenes, esc50, audiocaps, clotho"),
        ({"queue_size": [4]}, "Did you mean `queue_sizes`?"),
        ({"config": {"criterion": "moco_atc"}}, "`config.criterion.name`"),
        (
            {"config": {"regime": {"score_metric": None}}},
            "`config.regime.score_metric` is null, but a study compares",
        ),
        ({"config": {"common": {"seed": 1}}}, "`config.common.seed` is set by the list `seeds`"),
        (
            {"momenta": [0.5], "config": {"criterion": {"config": {"momentum": 0.9}}}},
            "`config.criterion.config.momentum` is set by the list `momenta`",
        ),
        (
            {"momenta": [0.5], "config": {"criterion": {"config": {"keys": "online"}}}},
            "`momenta` does nothing with `config.criterion.config.keys` online",
        ),
    ],
)
def test_a_mistake_is_named(values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_config(StudyConfig, values, "rank_study")


def run(**overrides: object) -> Run:
    return Run("q8_s0", {"criterion": {"config": {"queue_size": 8}}, **overrides}, "toy")


def save(path: Path, tree: dict) -> None:
    with path.open("w") as file:
        write_yaml(tree, file)


def test_a_folder_of_the_study_must_have_been_started_alike(tmp_path: Path) -> None:
    check_folder(run(), tmp_path / "new")
    save(tmp_path / OVERRIDES, dict(run(optimizer={"lr": 1e-5}).overrides))
    check_folder(run(optimizer={"lr": 0.00001}), tmp_path)
    with pytest.raises(ValueError, match=r"`optimizer.lr` was 1e-05 and is 0.1. Give another"):
        check_folder(run(optimizer={"lr": 0.1}), tmp_path)
    with pytest.raises(ValueError, match=r"`optimizer.lr` was 1e-05 and is not set"):
        check_folder(run(), tmp_path)
    with pytest.raises(ValueError, match=r"`common.seed` was not set and is 1"):
        check_folder(run(optimizer={"lr": 1e-5}, common={"seed": 1}), tmp_path)


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    save(tmp_path / OVERRIDES, dict(run().overrides))
    check_folder(run(), tmp_path)  # of a version that wrote no recipe
    (tmp_path / RECIPE).write_text("toy\n")
    check_folder(run(), tmp_path)
    with pytest.raises(ValueError, match="a run of the recipe toy, and this study is of scenes"):
        check_folder(replace(run(), recipe="scenes"), tmp_path)


def test_any_other_run_of_the_recipe_must_have_all_overrides(tmp_path: Path) -> None:
    full = {"criterion": {"name": "moco", "config": {"queue_size": 8}}, "common": {"seed": 1}}
    save(tmp_path / "config.yaml", full)
    check_folder(run(), tmp_path)
    check_folder(run(common={"seed": 1}), tmp_path)
    with pytest.raises(ValueError, match=r"q?.*`common.seed` was 1 and is 2"):
        check_folder(run(common={"seed": 2}), tmp_path)


def test_yaml_comes_back_as_it_was(tmp_path: Path) -> None:
    # A string of a file of YAML 1.1 would come back as a number or a truth value.
    tree = {"a": 1e-5, "b": "1e-5", "c": "off", "d": None, "e": [1, "2"], "f": {}}
    save(tmp_path / "x.yaml", tree)
    assert read_yaml(tmp_path / "x.yaml") == tree
    stream = io.StringIO()
    write_yaml({"z": 1, "a": 2}, stream)
    assert stream.getvalue() == "z: 1\na: 2\n"
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="list.yaml is not a mapping"):
        read_yaml(tmp_path / "list.yaml")
