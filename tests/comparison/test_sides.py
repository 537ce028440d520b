"""Which runs stand on which side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compared_folders import clips, evaluation

from atr_moco_plugin.comparison.sides import parse_sides
from atr_moco_plugin.errors import InputError, MissingFileError


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two recipes with two seeds each, and one run more."""
    for name, lr, seeds in (("base", 0.1, (0, 1)), ("ours", 0.2, (0, 1)), ("third", 0.3, (5,))):
        for seed in seeds:
            config = {"optimizer": {"config": {"lr": lr}}, "common": {"seed": seed}}
            evaluation(tmp_path / f"{name}-s{seed}", clips(4), seed, config=config)
    return tmp_path


def names(arguments: list[str], **options: bool) -> dict[str, list[str]]:
    sides, _ = parse_sides(arguments, **options)
    return {side.name: [source.path.name for source in side.sources] for side in sides}


def test_runs_that_differ_in_their_seed_alone_are_one_side(runs: Path) -> None:
    order = ("base-s0", "ours-s1", "base-s1", "third-s5", "ours-s0")
    given = [str(runs / name) for name in order]
    assert names(given) == {
        "base": ["base-s0", "base-s1"],
        "ours": ["ours-s1", "ours-s0"],
        "third-s5": ["third-s5"],
    }
    assert len(names(given, group=False)) == 5
    _, notes = parse_sides(given)
    assert any("base-s1 differ in their seed alone and are one side" in note for note in notes)


def test_two_seeds_of_one_recipe_are_compared_and_said_to_be_that(runs: Path) -> None:
    given = [str(runs / "base-s0"), str(runs / "base-s1")]
    assert len(names(given)) == 2
    assert "chance of training" in parse_sides(given)[1][0]


def test_named_sides(runs: Path) -> None:
    found = names([f"old={runs / 'base-s0'},{runs / 'base-s1'}", f"new={runs / 'third-s5'}"])
    assert found == {"old": ["base-s0", "base-s1"], "new": ["third-s5"]}


def test_systems_of_one_run(runs: Path) -> None:
    run = str(runs / "base-s0")
    sides, _ = parse_sides([run, f"{run}:reranked_k4"])
    assert [side.name for side in sides] == ["base-s0", "base-s0:reranked_k4"]
    assert [side.sources[0].system for side in sides] == [None, "reranked_k4"]


def test_folders_with_odd_names(runs: Path, tmp_path: Path) -> None:
    odd = evaluation(tmp_path / "a=b,c:d", clips(4), 0)
    assert names([str(odd), str(runs / "base-s0")]) == {
        "a=b,c:d": ["a=b,c:d"],
        "base-s0": ["base-s0"],
    }


def test_a_folder_with_an_odd_name_may_have_a_system_or_be_at_home(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    evaluation(tmp_path / "lr=0.1", clips(4), 0)
    for given in (f"{tmp_path}/lr=0.1:reranked_k4", "~/lr=0.1", "~/lr=0.1:reranked_k4"):
        sides, _ = parse_sides([given, str(runs / "base-s0")])
        assert sides[0].sources[0].path == tmp_path / "lr=0.1"
        assert sides[0].sources[0].system == (given.partition(":")[2] or None)


def test_a_side_of_several_runs_whose_first_has_a_system(runs: Path) -> None:
    given = f"a={runs / 'base-s0'}:dual,{runs / 'base-s1'}"
    sides, _ = parse_sides([given, str(runs / "third-s5")])
    assert sides[0].name == "a"
    assert [(x.path.name, x.system) for x in sides[0].sources] == [
        ("base-s0", "dual"),
        ("base-s1", None),
    ]


@pytest.mark.parametrize("name", ["$not_set", "cost in $x", "~nobody-of-this-name"])
def test_names_of_sides_that_cannot_be_expanded(runs: Path, name: str) -> None:
    found = names([f"{name}={runs / 'base-s0'}", f"b={runs / 'third-s5'}"])
    assert list(found) == [name, "b"]
    with pytest.raises(InputError, match="is not set"):
        names([f"{name}=$not_set/run", f"b={runs / 'third-s5'}"])


def test_evaluations_whose_run_is_not_there_are_told(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one names its run from the folder it was started in."""
    evaluations = []
    for name in ("base-s0", "base-s1", "ours-s0", "ours-s1"):
        folder = evaluation(tmp_path / "of" / name, clips(4), int(name[-1]), config={"split": "t"})
        about = {"run": name, "seed": int(name[-1]), "dataset": "tiny"}
        (folder / "retrieval.json").write_text(json.dumps(about))
        evaluations.append(str(folder))
    sides, notes = parse_sides(evaluations)
    assert len(sides) == 4
    assert "base-s0" in notes[0] and "there is no base-s0/config.yaml, which says which" in notes[0]
    assert "compare from the folder in which this path begins" in notes[0]
    # Nothing is put together by it where sides have names, or are not to be put together.
    pairs = [",".join(evaluations[:2]), ",".join(evaluations[2:])]
    assert parse_sides([f"a={pairs[0]}", f"b={pairs[1]}"])[1] == []
    assert parse_sides(evaluations, group=False)[1] == []
    monkeypatch.chdir(runs)
    sides, notes = parse_sides(evaluations)
    assert [side.name for side in sides] == ["base", "ours"]
    assert not any("there is no" in note for note in notes)
    about = {"run": str(tmp_path / "gone"), "seed": 0, "dataset": "tiny"}
    (tmp_path / "of/base-s0/retrieval.json").write_text(json.dumps(about))
    note = parse_sides(evaluations)[1][-1]
    assert f"there is no {tmp_path}/gone/config.yaml" in note
    assert "Put the run back, or write NAME=RUN,RUN" in note


def test_folders_of_one_name_are_named_by_their_paths(tmp_path: Path) -> None:
    given = [
        str(evaluation(tmp_path / where / "run", clips(4), 0, config={"at": where}))
        for where in "ab"
    ]
    assert list(names(given)) == given


def test_runs_that_differ_in_more_than_their_seed_are_told(runs: Path) -> None:
    _, notes = parse_sides([f"x={runs / 'base-s0'},{runs / 'ours-s1'}", str(runs / "third-s5")])
    assert notes == ["The runs of x differ in more than their seed: optimizer.config.lr."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}/base-s0"], "takes two sides or more"),
        (["{0}/base-s0", "{0}/nowhere"], "nowhere is not there"),
        (["{0}/base-s0", "x="], "is no side"),
        (["x={0}/base-s0", "x={0}/ours-s0"], "'x' is there twice"),
        (["x={0}/base-s0,{0}/base-s0", "{0}/ours-s0"], "on the side 'x' twice"),
        (["{0}/base-s0", "{0}/base-s0:dual"], "on two sides: a run cannot be compared with"),
        (["x={0}/base-s0,{0}/base-s0:dual", "{0}/ours-s0"], "on the side 'x' twice"),
        (
            ["x={0}/base-s0,{0}/base-s1:reranked_k4", "{0}/ours-s0"],
            "The side 'x' has results of 'dual' in .*base-s0 and of 'reranked_k4' in .*base-s1",
        ),
        (["{0}/base-s0", "{0}/../{1}/base-s0"], "on two sides: a run cannot be compared with"),
        (["x={0}/base-s0,{0}/base-s1", "y={0}/ours-s0,{0}/base-s1"], "base-s1 is there on two"),
        (["{0}/base-s0/config.yaml:dual", "{0}/ours-s0"], "names a system of a file"),
        (["{0}/base-s0/queries.safetensors", "{0}/ours-s0"], "give its folder, .*base-s0"),
    ],
)
def test_mistakes(runs: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_sides([argument.format(runs, runs.name) for argument in arguments])


def test_a_copy_of_a_run_is_no_other_seed(runs: Path, tmp_path: Path) -> None:
    lr = {"optimizer": {"config": {"lr": 0.1}}, "common": {"seed": 0}}
    copy = evaluation(tmp_path / "copy", clips(4), 0, config=lr)
    with pytest.raises(InputError, match="one configuration and both the seed 0"):
        parse_sides([f"x={runs / 'base-s0'},{copy}", str(runs / "third-s5")])


def test_a_missing_run_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        parse_sides([str(tmp_path), str(tmp_path / "nowhere")])


def test_a_copy_of_a_run_is_not_called_another_seed(runs: Path, tmp_path: Path) -> None:
    lr = {"optimizer": {"config": {"lr": 0.1}}, "common": {"seed": 0}}
    copy = evaluation(tmp_path / "copy", clips(4), 0, config=lr)
    _, notes = parse_sides([str(runs / "base-s0"), str(copy)])
    assert notes[0].endswith("is a run there twice?")
