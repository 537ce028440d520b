"""An evaluation of a run over data whose splits have changed since it was trained."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from finetune_world import OPTIONS
from sound_folders import write_sound
from tiny_bundle import make_bundle

from atr_moco_plugin.evaluation.queries import QUERIES_FILE, read_queries
from atr_moco_plugin.evaluation.trained_clips import (
    TRAINED_CLIPS,
    keep_trained_clips,
    read_trained_clips,
)
from atr_moco_plugin.finetuning.choices import nested
from atr_moco_plugin.finetuning.prepare import prepare
from atr_moco_plugin.hosts.fairseq2.finetune import run as finetune

Run = Callable[..., int]


@pytest.fixture(scope="session")
def tiny_options(tiny_options: list[str]) -> list[str]:
    """Without the embedded data set's own options."""
    return [x for x in tiny_options if not x.startswith("dataset.config_overrides.")]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Forty sounds and a table that names no splits."""
    root = tmp_path / "sounds"
    for number in range(40):
        write_sound(root / f"clip{number:02}x.wav", number)
    write_table(root, range(40))
    return root


def write_table(root: Path, numbers: range, splits: dict[str, str] | None = None) -> None:
    """With the splits of some clips, the others are of the training split."""
    rows = ["file_name,caption" + (",split" if splits else "")]
    for number in numbers:
        name = f"clip{number:02}x.wav"
        split = f",{splits.get(name, 'train')}" if splits else ""
        rows.append(f"{name},sound {number} is heard{split}")
    (root / "captions.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def trained_on(run: Run, sounds: Path, tmp_path: Path) -> Path:
    """A run over the sounds."""
    out = tmp_path / "out"
    data = ["dataset.family=folder", f"dataset.config_overrides.root={sounds}"]
    assert run(out, *data, "regime.num_steps=2", "evaluation.test_split=test") == 0
    return out


@pytest.mark.slow
def test_a_split_that_is_drawn_anew_is_refused(
    evaluation: Run, trained_on: Path, sounds: Path, tmp_path: Path, capfd
) -> None:
    """Rows of its table were deleted. Most of its clips were trained on, and nothing said so."""
    write_table(sounds, range(12, 40))
    capfd.readouterr()
    assert evaluation(tmp_path / "a", f"run={trained_on}", "split=valid") == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert "clips of 'valid' (clip" in error and "was trained on" in error
    # By leave it is evaluated, and the figures say so.
    allowed = ["split=valid", "allow_trained=true", "rerank_k=[]"]
    assert evaluation(tmp_path / "b", f"run={trained_on}", *allowed) == 0
    assert "was trained on" in capfd.readouterr().err
    assert json.loads((tmp_path / "b" / "retrieval.json").read_text())["seen_by_run"]["train"] > 0
    # The training split is evaluated by its name.
    assert evaluation(tmp_path / "c", f"run={trained_on}", "split=train", "rerank_k=[]") == 0
    assert "was trained on" not in capfd.readouterr().err
    # A run of an earlier version does not say what it trained on.
    (trained_on / TRAINED_CLIPS).unlink()
    assert evaluation(tmp_path / "d", f"run={trained_on}", "rerank_k=[]") == 0
    assert "was trained on other data" in capfd.readouterr().err
    # Another data set is no mistake.
    other = [f"run={trained_on}", "rerank_k=[]", "dataset.config_overrides.name=others"]
    assert evaluation(tmp_path / "e", *other) == 0
    assert "was trained on other data" not in capfd.readouterr().err


@pytest.mark.slow
def test_captions_that_the_run_has_dropped_make_no_other_data(
    run: Run, evaluation: Run, sounds: Path, tmp_path: Path, capfd
) -> None:
    names = {"valid": range(4), "test": range(4, 8)}
    splits = {f"clip{n:02}x.wav": name for name, numbers in names.items() for n in numbers}
    write_table(sounds, range(40), splits)
    table = sounds / "captions.csv"
    unreadable = table.read_text()
    for number in (2, 5, 9):  # a letter to Unicode that gives no token
        unreadable = unreadable.replace(f"sound {number} is heard", "\u0345")
    table.write_text(unreadable)
    out = tmp_path / "out"
    data = ["dataset.family=folder", f"dataset.config_overrides.root={sounds}"]
    assert run(out, *data, "regime.num_steps=2") == 0
    for split in ("valid", "test"):
        capfd.readouterr()
        options = [f"run={out}", f"split={split}", "rerank_k=[]"]
        with pytest.warns(UserWarning, match="which are dropped"):
            assert evaluation(tmp_path / f"new_{split}", *options) == 0
        said = capfd.readouterr().err
        assert "other ones" not in said and "was trained on" not in said
    # A run of an earlier version.
    (out / TRAINED_CLIPS).unlink()
    for split in ("valid", "test"):
        options = [f"run={out}", f"split={split}", "rerank_k=[]"]
        assert evaluation(tmp_path / f"old_{split}", *options) == 0
        assert "was trained on other data" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_run_knows_the_clips_of_the_run_in_init(
    run: Run, trained_on: Path, sounds: Path, tmp_path: Path
) -> None:
    write_table(sounds, range(12, 40))
    data = ["dataset.family=folder", f"dataset.config_overrides.root={sounds}"]
    assert run(tmp_path / "next", f"init={trained_on}", *data, "regime.num_steps=2") == 0
    before, now = read_trained_clips(trained_on), read_trained_clips(tmp_path / "next")
    assert before is not None and now is not None
    assert set(before.ids["train"]) <= set(now.ids["train"])


@pytest.mark.slow
def test_a_fine_tuning_knows_the_clips_of_the_run_in_init(tmp_path: Path) -> None:
    """Its weights are copied, and the copy was no run."""
    options = {key: x for key, x in OPTIONS.items() if not key.startswith("model.")}
    options |= {"init": str(make_bundle(tmp_path / "run" / "bundle")), "loop": "fairseq2"}
    ready = prepare(nested(options), tmp_path / "out", tell=str)
    # What is tested on here was trained on there.
    keep_trained_clips(tmp_path / "run", ready.dataset, "test", "valid", goes_on=False)
    with pytest.warns(UserWarning, match=f"3 of 3 clips of 'test' .* {tmp_path / 'run'}"):
        assert finetune(ready) is not None
    before, now = (read_trained_clips(tmp_path / x) for x in ("run", "out"))
    assert before is not None and now is not None
    assert len(now.ids["train"]) == 15 and set(before.ids["train"]) <= set(now.ids["train"])


@pytest.mark.slow
def test_a_split_that_corrections_are_chosen_on_is_refused_too(
    evaluation: Run, trained_on: Path, sounds: Path, tmp_path: Path, capfd
) -> None:
    had = read_queries(trained_on / QUERIES_FILE)
    splits = {clip: name for name in ("valid", "test") for clip in had[name].clips}
    write_table(sounds, range(40), splits)
    options = [f"run={trained_on}", "split=test", "rerank_k=[]", "correct=[nnn]"]
    capfd.readouterr()
    assert evaluation(tmp_path / "a", *options) == 0
    said = capfd.readouterr().err
    assert "was trained on" not in said and "other ones" not in said
    moved = next(f"clip{n:02}x.wav" for n in range(40) if f"clip{n:02}x.wav" not in splits)
    write_table(sounds, range(40), splits | {moved: "valid"})
    assert evaluation(tmp_path / "b", *options) == 2
    said = capfd.readouterr().err
    assert f"of 'valid' ({moved})" in said and "was trained on" in said
    # What chose the checkpoint is warned of.
    write_table(sounds, range(40), splits | {had["valid"].clips[0]: "test"})
    assert evaluation(tmp_path / "c", f"run={trained_on}", "split=test", "rerank_k=[]") == 0
    assert "chose its checkpoint" in capfd.readouterr().err
