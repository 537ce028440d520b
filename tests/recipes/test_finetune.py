"""The recipe ``finetune``: one line for a mistake, and the same figures on both loops."""

from __future__ import annotations

import importlib.util
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest

if importlib.util.find_spec("fairseq2") is None or importlib.util.find_spec("accelerate") is None:
    pytest.skip("fairseq2 or accelerate is not installed", allow_module_level=True)

import yaml
from finetune_world import prepared, stated
from sound_folders import write_sound

from atr_moco_plugin.commands.main import main as atr_moco
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.run_folder import settle_folder
from atr_moco_plugin.hosts.fairseq2.finetune import FinetuneRecipeConfig
from atr_moco_plugin.recipes.finetune import main
from atr_moco_plugin.retriever import AudioTextRetriever

FAIRSEQ2_ONLY = {
    "dataset.name", "dataset.path", "model.name", "model.path", "model.family", "model.dtype",
    "evaluation.rerank_while_training",
}  # fmt: skip
"""Keys of the recipes' own sections that one loop has; sections of fairseq2 itself have more."""
OWN_SECTIONS = ("dataset", "tokenizer", "evaluation", "safety")


def keys(config_class: Any, prefix: str = "") -> set[str]:
    """Dotted keys of a configuration class."""
    found, types = set(), get_type_hints(config_class)
    for field in fields(config_class):
        kind = types[field.name]
        inner = keys(kind, f"{prefix}{field.name}.") if is_dataclass(kind) else set()
        found |= inner or {f"{prefix}{field.name}"}
    return found


def test_an_option_of_the_recipes_is_one_of_a_fine_tuning_too() -> None:
    def own(config_class: Any) -> set[str]:
        return {x for x in keys(config_class) if x.split(".")[0] in OWN_SECTIONS}

    assert own(FinetuneRecipeConfig) - FAIRSEQ2_ONLY == own(FinetuneConfig)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["dataset.config_overrides.root=no/such"], "there is no such folder"),
        (["dataset.family=toy", "init=./no/such.pt"], "there is no such file or folder"),
        (["dataset.family=toy", "loop=transformers", "gang.x=1"], "`gang.x` is not known"),
        (["dataset.family=toy", "regime.num_steps=0"], "`num_steps` is 0, expected 1 or more"),
        (["dataset.batch_size"], "is no KEY=VALUE"),
    ],
)
def test_a_mistake_is_one_line(
    pairs: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "out"), "--config", *pairs]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ") and error.count("\n") == 1 and message in error


def test_the_plan_is_shown_and_nothing_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(stated()))
    assert main([str(tmp_path / "out"), "--config-file", str(file), "--plan"]) == 0
    assert "optimizer.config.lr" in capsys.readouterr().out
    assert [x.name for x in (tmp_path / "out").iterdir() if x.suffix] == ["plan.json"]


@pytest.mark.parametrize("loop", ["transformers", "fairseq2"])
@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("dataset.batch_size=64", "split 'train' has 12 examples and gives no batch of 64"),
        ("criterion.config.quue_size=8", "quue_size` is not known"),
        ("criterion.name=moco", "'moco' is not installed"),
        ("regime.score_metric=r_summ", "`regime.score_metric` is r_summ"),
        ("dataset.cache_embeddings=cache", "keeps the outputs of encoders that stand still"),
        ("tokenizer.vocab_size=3", "vocab_size 3 has no room"),
        ("evaluation.test_split=nope", "has no split 'nope'"),
        ("dataset.max_seconds=0.01", "takes clips of 0.335 s or more"),
        ("common.seed=-1", "`seed` is -1"),
        ("criterion.config.teachers=[nowhere]", "`teachers` has 'nowhere', but there is no"),
    ],
)
def test_the_plan_refuses_what_training_would_refuse(
    loop: str, pair: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(stated()))
    arguments = [str(tmp_path / "out"), "--config-file", str(file), "--plan"]
    assert main([*arguments, "--config", pair, f"loop={loop}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ERROR: ") and error.count("\n") == 1 and message in error


def test_the_plan_takes_a_score_of_re_ranking_where_validations_re_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was refused, and the training took it."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(stated(loop="fairseq2")))
    arguments = [str(tmp_path / "out"), "--config-file", str(file), "--plan", "--config"]
    keys = {"evaluation.rerank_while_training": "true", "evaluation.rerank_k": "4"}
    keys |= {"criterion.name": "moco_atc_atm", "regime.score_metric": "reranked_r_sum"}
    assert main([*arguments, *(f"{key}={x}" for key, x in keys.items())]) == 0
    for without in (
        {"evaluation.rerank_while_training": "false"},
        {"evaluation.rerank_k": "0"},
        {"criterion.name": "moco_atc"},
    ):
        capsys.readouterr()
        assert main([*arguments, *(f"{key}={x}" for key, x in (keys | without).items())]) == 2
        assert "but validations do not re-rank" in capsys.readouterr().err


@pytest.mark.parametrize("loop", ["fairseq2", "transformers"])
def test_the_plan_names_a_split_in_two_roles(
    loop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(stated()))
    arguments = [str(tmp_path / "out"), "--config-file", str(file), "--plan"]
    pairs = ["dataset.train_split=valid", "dataset.batch_size=2", f"loop={loop}"]
    assert main([*arguments, "--config", *pairs]) == 0
    said = "`dataset.valid_split` is valid, which is trained on: its figures are of known clips."
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("loop", "pair", "message"),
    [
        ("transformers", "trainer.grad_accumulation.num_batches=9", "which fill no step"),
        ("fairseq2", "trainer.grad_accumulation.num_batches=9", "which fill no step"),
        ("fairseq2", "regime.checkpoint_every_n_steps=2", "which is no multiple of"),
        ("fairseq2", "regime.num_stepz=2", "`regime.num_stepz` is not known"),
        ("fairseq2", "common.no_sweep_dir=false", "leave it out"),
    ],
)
def test_the_plan_refuses_what_its_loop_would_refuse(
    loop: str, pair: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(stated()))
    arguments = [str(tmp_path / "out"), "--config-file", str(file), "--plan"]
    assert main([*arguments, "--config", pair, f"loop={loop}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("loop", ["transformers", "fairseq2"])
def test_the_plan_refuses_the_folder_that_training_would_refuse(
    loop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "mine.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(stated(loop=loop)))
    begun = {"transformers": "checkpoint-3", "fairseq2": "checkpoints/step_3"}
    settings = out / ("config.yaml" if loop == "transformers" else "start/config.yaml")
    settle_folder(out, prepared(out, loop=loop).config, str(settings.relative_to(out)))
    (out / begun[loop]).mkdir(parents=True)
    arguments = [str(out), "--config-file", str(file), "--plan"]
    assert main(arguments) == 0
    before = settings.read_bytes()
    assert main([*arguments, "--config", "optimizer.config.lr=0.5"]) == 2
    assert "optimizer.config.lr was 0.001 and is 0.5" in capsys.readouterr().err
    (out / begun[loop]).rename(out / "gone")
    (out / begun["fairseq2" if loop == "transformers" else "transformers"]).mkdir(parents=True)
    assert main(arguments) == 2
    assert "holds a run of the loop" in capsys.readouterr().err
    assert settings.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"), [("[1]", "fairseq2 takes for a pattern"), ("e", "holds an evaluation")]
)
def test_the_plan_refuses_a_folder_that_fairseq2_cannot_use(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "mine.yaml", tmp_path / name
    file.write_text(yaml.safe_dump(stated(loop="fairseq2")))
    out.mkdir()
    if name == "e":
        (out / "config.yaml").write_text("run: runs/other\nsplit: test\n")
    for more in (["--plan"], []):
        assert main([str(out), "--config-file", str(file), *more]) == 2
        assert message in capsys.readouterr().err
        assert not (out / "start").exists()


@pytest.mark.slow
def test_both_loops_see_the_same_batches_and_report_the_same_figures(tmp_path: Path) -> None:
    figures, rows = {}, {}
    for loop in ("fairseq2", "transformers"):
        file, out = tmp_path / f"{loop}.yaml", tmp_path / loop
        changes = {"loop": loop, "dataset__augment": None}
        file.write_text(yaml.safe_dump(stated(**changes)))
        command = [sys.executable, "-m", "atr_moco_plugin.recipes.finetune", str(out)]
        subprocess.run([*command, "--config-file", str(file)], check=True)
        figures[loop] = json.loads((out / "retrieval.json").read_text())
        retriever = AudioTextRetriever.from_pretrained(out / "bundle", device="cpu")
        rows[loop] = retriever.embed_text(["a dog barks", "rain"])
    one, other = figures["fairseq2"], figures["transformers"]
    assert one["checkpoint"].split("_")[-1] == other["checkpoint"].split("-")[-1]
    for split, result in one["splits"].items():
        assert result["dual"] == other["splits"][split]["dual"]
    assert (rows["fairseq2"] - rows["transformers"]).abs().max() < 1e-5


def folder_of_sounds(root: Path) -> Path:
    """Three sub-folders of eight sounds."""
    for number in range(24):
        write_sound(root / ("dog", "rain", "door")[number % 3] / f"{number}.wav", number)
    return root


def test_the_lines_at_the_end_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds, out = folder_of_sounds(tmp_path / "my sounds"), tmp_path / "the run"
    file = tmp_path / "mine.yaml"
    changes = {"dataset__family": "folder", "dataset__config_overrides__root": str(sounds)}
    file.write_text(yaml.safe_dump(stated(**changes)))
    assert main([str(out), "--config-file", str(file)]) == 0
    pasted = [x.strip() for x in capsys.readouterr().out.splitlines() if x.startswith("  python")]
    assert [shlex.split(x)[3] for x in pasted] == ["index", "search"]
    for line in pasted:
        assert atr_moco([*shlex.split(line)[3:], "--device", "cpu"]) == 0
    assert str(sounds) in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"), [("fairseq2", "transformers"), ("transformers", "fairseq2")]
)
def test_a_run_of_the_other_loop_is_refused(tmp_path: Path, one: str, other: str) -> None:
    command = [sys.executable, "-m", "atr_moco_plugin.recipes.finetune", str(tmp_path / "out")]
    results = []
    for loop in (one, "transformers" if one == "fairseq2" else "fairseq2"):
        file = tmp_path / f"{loop}.yaml"
        file.write_text(yaml.safe_dump(stated(loop=loop)))
        run = [*command, "--config-file", str(file)]
        results.append(subprocess.run(run, capture_output=True, text=True))
    assert [x.returncode for x in results] == [0, 2]
    assert f"set `loop={one}`" in results[1].stderr


@pytest.mark.slow
def test_fairseq2_refuses_a_folder_of_other_settings(tmp_path: Path) -> None:
    results = []
    for rate in (0.001, 0.5):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(stated(loop="fairseq2", optimizer__config__lr=rate)))
        command = [sys.executable, "-m", "atr_moco_plugin.recipes.finetune", str(tmp_path / "out")]
        run = [*command, "--config-file", str(file)]
        results.append(subprocess.run(run, capture_output=True, text=True))
    assert [x.returncode for x in results] == [0, 2]
    assert "optimizer.config.lr was 0.001 and is 0.5" in results[1].stderr


@pytest.mark.slow
def test_a_run_that_a_signal_has_stopped_writes_no_bundle(tmp_path: Path) -> None:
    """It was made of a checkpoint of half a run, and said to be the end."""
    out, file = tmp_path / "out", tmp_path / "mine.yaml"
    steps = {"regime__num_steps": 400, "regime__checkpoint_every_n_steps": 3}
    file.write_text(yaml.safe_dump(stated(loop="fairseq2", **steps)))
    command = [sys.executable, "-m", "atr_moco_plugin.recipes.finetune", str(out)]
    command += ["--config-file", str(file)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not list((out / "checkpoints").glob("step_*")):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGUSR1)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0 and "Stopped; the same command goes on" in said
    assert not (out / "bundle").exists() and not (out / "retrieval.json").exists()
