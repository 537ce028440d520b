"""Output folders that a run cannot use: refused before anything is written there."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.trained_clips import keep_trained_clips, read_trained_clips
from atr_moco_plugin.hosts.fairseq2.runs.output import check_for_evaluation, remove_evaluation

Run = Callable[..., int]


@pytest.mark.parametrize("name", ["run[1]", "a]b", "lr*", "what?"])
def test_a_name_that_is_a_pattern_is_refused(run: Run, tmp_path: Path, capsys, name: str) -> None:
    """fairseq2 globs for checkpoints: it found none there, and a killed run began anew."""
    assert run(tmp_path / name) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert name in error and "takes for a pattern" in error
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_folder_above_is_one_too(
    run: Run, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "[lab]").mkdir()
    monkeypatch.chdir(tmp_path / "[lab]")
    assert run(Path("out")) == 2
    assert "takes for a pattern" in capsys.readouterr().err
    assert not list((tmp_path / "[lab]").iterdir())


def test_checkpoints_in_another_folder_are_refused(run: Run, tmp_path: Path, capsys) -> None:
    """A second command without the option began anew over the run's records, and no evaluation
    found them."""
    assert run(tmp_path / "out", more=("--checkpoint-dir", str(tmp_path / "saved"))) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "`--checkpoint-dir`" in error and str(tmp_path / "out" / "checkpoints") in error
    assert not list(tmp_path.iterdir())


def test_a_folder_that_another_run_uses_is_refused(run: Run, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    program = (
        "import sys; from pathlib import Path; from atr_moco_plugin.io.lock import lock_folder;"
        "lock_folder(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    try:
        assert run(out) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert f"{out} is in use by process {other.pid} on " in error
        assert [x.name for x in out.iterdir()] == [".lock"]
    finally:
        other.kill()
        other.wait()
    assert run(out) == 0


def test_the_folder_of_an_evaluation_is_none_for_a_training_run(
    run: Run, tmp_path: Path, capsys
) -> None:
    (tmp_path / "config.yaml").write_text("run: somewhere\nsplit: test\n")
    assert run(tmp_path) == 2
    assert "holds an evaluation" in capsys.readouterr().err
    assert [x.name for x in tmp_path.iterdir()] == ["config.yaml"]


def test_only_what_an_evaluation_writes_is_removed(tmp_path: Path) -> None:
    (tmp_path / "trec").mkdir()
    for name in ("retrieval.json", "embeddings.safetensors", "trec/a2t.qrels", "trec/x.run"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="holds another evaluation .retrieval.json, .*overwrite"):
        check_for_evaluation(tmp_path, overwrite=False)
    (tmp_path / "trec" / "notes.txt").touch()
    (tmp_path / "mine").touch()
    check_for_evaluation(tmp_path, overwrite=True)
    remove_evaluation(tmp_path)
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["mine", "notes.txt", "trec"]
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="of a training run"):
        check_for_evaluation(tmp_path, overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["trainer.grad_accumulation.num_batches=4"], "is 4, but an epoch of `train` has 3 batch"),
        (["trainer.grad_accumulation.num_batches=2", "dataset.batch_size=16"], "is 2, but"),
    ],
)
def test_an_epoch_that_fills_no_step_is_refused(
    run: Run, tmp_path: Path, capsys, options: list[str], said: str
) -> None:
    """Nothing was trained, and the run ended well."""
    assert run(tmp_path, *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error and "30 pairs in batches of" in error and "lower it" in error
    assert not list((tmp_path / "checkpoints").glob("step_*"))
    assert run(tmp_path, "trainer.grad_accumulation.num_batches=3", "regime.num_steps=2") == 0
    assert (tmp_path / "checkpoints" / "step_2").is_dir()


def test_a_run_that_goes_on_keeps_which_clips_it_was_trained_on(run: Run, stopped: Path) -> None:
    kept = read_trained_clips(stopped)
    assert kept is not None and {x: len(ids) for x, ids in kept.ids.items()} == {
        "train": 30, "valid": 6
    }  # fmt: skip
    # As if other clips had chosen its checkpoint before.
    other = open_toy(ToyConfig(num_train=2, num_valid=2, num_test=9))
    keep_trained_clips(stopped, other, "train", "test", goes_on=False)
    assert run(stopped) == 0
    now = read_trained_clips(stopped)
    assert now is not None and {x: len(ids) for x, ids in now.ids.items()} == {
        "train": 30, "valid": 15
    }  # fmt: skip


def test_a_refused_command_leaves_what_the_folder_says_of_its_checkpoints(
    run: Run, trained_copy: Path, capsys
) -> None:
    """An evaluation takes configuration and tokenizer from there: it read other ids than the text
    tower was trained with, without a word."""
    out = trained_copy
    names = ("config.yaml", "model.json", "evaluation_clips.json")
    files = [*(out / name for name in names), *(out / "tokenizer").iterdir()]
    before = {file: file.read_bytes() for file in files}
    assert run(out, "tokenizer.vocab_size=300", "dataset.config_overrides.num_train=20") == 2
    assert "cannot be continued" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in files} == before
    # A command that is right is recorded, also where it has no step left to make.
    assert run(out, "regime.keep_best_n_checkpoints=3") == 0
    assert (out / "config.yaml").read_bytes() != before[out / "config.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("regime.score_metric=t2a_r1", "regime.score_metric was r_sum and is t2a_r1"),
        ("dataset.valid_split=test", "dataset.valid_split was valid and is test"),
        ("evaluation.max_seconds=0.5", "evaluation.max_seconds was 1.0 and is 0.5"),
    ],
)
def test_scores_of_two_kinds_never_choose_a_checkpoint(
    run: Run, tmp_path: Path, capsys, option: str, said: str
) -> None:
    """R-sums of hundreds stood beside recalls of tens, and an older checkpoint always won."""
    longer = ["lr_scheduler.config.cycle_len=8", "dataset.config_overrides.num_test=5"]
    assert run(tmp_path, *longer) == 0
    capsys.readouterr()
    assert run(tmp_path, *longer, "regime.num_steps=6", option) == 2
    written = capsys.readouterr().err
    assert said in written and "Traceback" not in written
    shutil.rmtree(tmp_path / "checkpoints" / "scores")
    assert run(tmp_path, *longer, "regime.num_steps=6", option) == 0
    assert '"checkpoint": "checkpoints/step_6"' in (tmp_path / "retrieval.json").read_text()


def test_a_run_whose_checkpoints_are_elsewhere_is_no_evaluation(trained_copy: Path) -> None:
    """`overwrite=true` removed its figures and replaced its configuration."""
    shutil.rmtree(trained_copy / "checkpoints")
    with pytest.raises(InputError, match="output folder of a training run"):
        check_for_evaluation(trained_copy, overwrite=True)
