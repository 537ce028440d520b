"""The page: what is on it, with sound and without."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from compared_folders import clips, evaluation
from scene_folders import write_classes

from atr_moco_plugin.comparison.assemble import Comparison, Options, compare
from atr_moco_plugin.comparison.changes import find_changes
from atr_moco_plugin.comparison.inference import Settings
from atr_moco_plugin.comparison.sides import parse_sides
from atr_moco_plugin.comparison.sounds import find_sounds
from atr_moco_plugin.data.sets.registry import dataset_config, open_dataset
from atr_moco_plugin.errors import InputError

pytest.importorskip("matplotlib")
from atr_moco_plugin.comparison.page import write_page  # noqa: E402

TOY = {"num_train": 4, "num_valid": 3, "num_test": 8}


def compared(*runs: object, qrels: Path | None = None) -> Comparison:
    sides, notes = parse_sides([str(run) for run in runs])
    return compare(sides, Options(qrels=qrels, settings=Settings(100, 100)), notes)


@pytest.fixture
def toy_runs(tmp_path: Path) -> list[Path]:
    """Two evaluations of a toy test set, whose sounds can be made anywhere."""
    of = list(open_dataset("toy", dataset_config("toy", TOY)).clips("test"))
    data = {"dataset": {"family": "toy", "config_overrides": TOY}}
    return [
        evaluation(tmp_path / name, of, seed, skill=skill, config={**data, "name": name})
        for name, seed, skill in (("base", 0, 1.0), ("ours", 1, 2.0))
    ]


def test_the_queries_that_changed_can_be_heard(toy_runs: list[Path], tmp_path: Path) -> None:
    page = write_page(compared(*toy_runs), tmp_path / "new/page.html", examples=2)
    text = page.read_text()
    assert "ours beside base" in text and "There are no sounds" not in text
    assert 4 <= text.count("<audio") and text.count("<svg") == 4
    for address in re.findall(r'(?:src|href)="([^"]{0,40})', text):
        assert address.startswith(("data:audio/", "#"))
    again = write_page(compared(*toy_runs), tmp_path / "again.html", examples=2)
    assert again.read_text() == text


def test_without_the_data_set_there_is_text(tmp_path: Path) -> None:
    gone = {"family": "esc50", "config_overrides": {"root": str(tmp_path / "gone")}}
    a, b = (
        evaluation(tmp_path / name, clips(), n, config={"name": name, "dataset": gone})
        for n, name in enumerate("ab")
    )
    text = write_page(compared(a, b), tmp_path / "page.html").read_text()
    assert "<audio" not in text
    assert "There are no sounds, since the data set of" in text and "cannot be opened" in text
    assert "sound 3 said 1" in text


def test_texts_of_the_data_are_escaped(tmp_path: Path) -> None:
    of = clips(name="<b>&")
    a, b = (evaluation(tmp_path / x, of, n, config={"name": x}) for n, x in enumerate("ab"))
    text = write_page(compared(a, b), tmp_path / "page.html", sound=False).read_text()
    assert "<b>" not in text and "&lt;b&gt;&amp;" in text


def test_changes_are_ordered_and_one_a_clip(tmp_path: Path) -> None:
    a, b = (
        evaluation(tmp_path / x, clips(20), n, skill=1.0 + 2 * n, config={"name": x})
        for n, x in enumerate("ab")
    )
    found = compared(a, b)
    for of_way in find_changes(found, found.pairs[0], 5):
        for changes, sign in ((of_way.better, 1), (of_way.worse, -1)):
            gains = []
            for change in changes:
                before, after = (int(answer.ranks[0]) for answer in change.answers)
                gains.append(sign * (1 / after - 1 / before))
            assert gains == sorted(gains, reverse=True) and all(gain > 0 for gain in gains)
        if of_way.way == "t2a":
            shown = [change.relevant for change in of_way.better]
            assert len(set(shown)) == len(shown)
            # A caption says whose it is.
            for change in of_way.better:
                assert change.query.split()[1] == change.relevant[0].split()[1]


def test_clips_that_judgements_call_irrelevant_are_not_called_right(tmp_path: Path) -> None:
    a, b = (
        evaluation(tmp_path / x, clips(20), n, skill=4.0 * n, config={"name": x}, trec=True)
        for n, x in enumerate("ab")
    )
    lines = (a / "trec/t2a.qrels").read_text().splitlines()
    # Each caption's own clip has grade 0, and the next one is right.
    judged = []
    for line in lines:
        query, _, clip, _ = line.split()
        other = f"clip%20{(int(clip.removeprefix('clip%20')) + 1) % 20}"
        judged += [f"{query} 0 {clip} 0", f"{query} 0 {other} 1"]
    qrels = tmp_path / "t2a_graded.qrels"
    qrels.write_text("\n".join(judged))
    found = compared(*(x / "trec/t2a_dual.run" for x in (a, b)), qrels=qrels)
    changes = find_changes(found, found.pairs[0], 5)[0]
    assert changes.better or changes.worse
    for change in (*changes.better, *changes.worse):
        clip = int(change.query.removeprefix("clip%20").partition("#")[0])
        assert change.relevant == (f"clip {(clip + 1) % 20}",)


def test_evaluations_are_asked_for_the_data_set_they_evaluated(tmp_path: Path) -> None:
    """retrieval.json of an evaluation names the run and the data set, which may be another."""
    of = list(open_dataset("toy", dataset_config("toy", TOY)).clips("test"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"dataset": {"family": "esc50"}}))
    folders = []
    for n, name in enumerate("ab"):
        folder = evaluation(tmp_path / name, of, n)
        (folder / "config.yaml").write_text(yaml.safe_dump({"run": str(run), "split": "test"}))
        about = {"run": str(run), "seed": n, "dataset": {"family": "toy", "config_overrides": TOY}}
        (folder / "retrieval.json").write_text(json.dumps(about))
        folders.append(folder)
    text = write_page(compared(*folders), tmp_path / "page.html", examples=1).read_text()
    assert "<audio" in text


def test_a_place_that_cannot_be_written(toy_runs: list[Path]) -> None:
    with pytest.raises(InputError, match="cannot be written .* --page"):
        write_page(compared(*toy_runs), toy_runs[0] / "config.yaml/page.html", sound=False)


def test_sounds_of_a_run_whose_options_do_nothing_are_found(tmp_path: Path) -> None:
    """Earlier runs have recorded such options, which are refused in a configuration."""
    options = {"root": str(write_classes(tmp_path / "sounds", each=4)), "test_fold": 2}
    options |= {"num_train": 2, "num_valid": 0, "num_test": 2, "valid_fraction": 0}
    data = {"family": "scenes", "config_overrides": options}
    run = evaluation(tmp_path / "run", clips(2), 0, config={"dataset": data})
    other = evaluation(tmp_path / "other", clips(2), 1, config={"dataset": data})
    sides, _ = parse_sides([f"a={run}", f"b={other}"])
    sounds, problem = find_sounds(sides[0].sources, ["test-00000"])
    assert list(sounds) == ["test-00000"] and problem == ""
