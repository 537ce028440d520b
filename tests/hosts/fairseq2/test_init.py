"""What a run starts from, through the command line of the fairseq2 host."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from fairseq2.recipe.error import RecipeError
from tiny_bundle import make_clap_bundle

from atr_moco_plugin.hosts.fairseq2.config.init import find_source
from atr_moco_plugin.hosts.fairseq2.export import export_run
from atr_moco_plugin.hosts.fairseq2.runs.folder import find_checkpoint
from atr_moco_plugin.retriever.bundle import read_bundle
from atr_moco_plugin.retriever.exported import ExportOptions


def checkpoint(run: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (run / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


def test_a_run_starts_from_a_bundle(run, trained: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    export_run(trained, ExportOptions()).write(bundle)
    assert run(
        tmp_path / "second", f"init={bundle}", "optimizer.config.lr=1e-30", "regime.num_steps=2"
    ) == 0  # fmt: skip
    new = checkpoint(tmp_path / "second", 2)
    for name, value in read_bundle(bundle).state.items():
        torch.testing.assert_close(new[f"model.{name}"], value, rtol=0, atol=1e-30, msg=name)
    folders = [folder / "tokenizer" for folder in (bundle, tmp_path / "second")]
    words = [json.loads((x / "tokenizer.json").read_text())["model"]["vocab"] for x in folders]
    assert words[0] == words[1]
    with pytest.raises(RecipeError, match="a bundle of a ClapModel, which the recipe finetune"):
        find_source(str(make_clap_bundle(tmp_path / "clap")))


def test_a_run_starts_from_the_best_checkpoint_of_another(
    run, trained: Path, tmp_path: Path
) -> None:
    first, second = trained, tmp_path / "second"
    best = find_checkpoint(first)[1]
    # A rate of next to nothing leaves the weights where they started.
    assert run(
        second, f"init={first}", "optimizer.config.lr=1e-30",
        "optimizer.config.temperature_lr=1e-3", "dataset.config_overrides.seed=5",
        "regime.num_steps=2",
    ) == 0  # fmt: skip

    old = checkpoint(first, int(best.name.removeprefix("step_")))
    new = checkpoint(second, 2)
    for name, value in old.items():
        if name.startswith("model."):
            # The rate moves what is exactly 0 to 1e-35.
            torch.testing.assert_close(new[name], value, rtol=0, atol=1e-30, msg=name)
            # The momentum copies start from the weights that were loaded.
            copy = name.replace("model.", "", 1).replace(".", "_m.module.", 1)
            if copy in new:
                torch.testing.assert_close(new[copy], value)
    # Queues hold the second data set's own ids alone.
    assert int(new["audio_queue.position"][0]) == 16
    assert not set(new["audio_queue.clip_ids"].tolist()[:16]) & set(
        old["audio_queue.clip_ids"].tolist()
    )
    # The tokenizer of the first run came along, and was not trained anew on other captions.
    names = [folder / "tokenizer" / "tokenizer.json" for folder in (first, second)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_file_of_a_run_comes_with_its_tokenizer(
    run, trained: Path, tmp_path: Path, capsys
) -> None:
    """A tokenizer was trained anew on other captions: the text tower read other ids."""
    (file,) = (trained / "checkpoints" / "step_4" / "model").rglob("*.pt")
    step = trained / "checkpoints" / "step_4"
    assert find_source(str(file)) == find_source(str(step))

    alone = tmp_path / "weights.pt"
    shutil.copy(file, alone)
    options = [f"init={alone}", "dataset.config_overrides.seed=5", "regime.num_steps=2"]
    assert run(tmp_path / "second", *options) == 2
    (error,) = [x for x in capsys.readouterr().err.splitlines() if " ERROR: " in x]
    assert f"`init` is {alone}" in error and "set `tokenizer.name`" in error
    assert run(tmp_path / "second", *options, f"tokenizer.name={trained / 'tokenizer'}") == 0


@pytest.mark.slow
def test_a_run_goes_on_when_its_start_is_gone(
    run, trained_copy: Path, tmp_path: Path, capsys
) -> None:
    second = tmp_path / "second"
    options = ["dataset.config_overrides.seed=5", "model.config_overrides.text_pooling=cls"]
    assert run(second, f"init={trained_copy}", *options) == 0
    whole = checkpoint(second, 4)
    shutil.rmtree(second / "checkpoints" / "step_4")
    (second / "checkpoints" / "scores" / "step_4.txt").unlink()
    shutil.rmtree(trained_copy)
    capsys.readouterr()
    assert run(second, f"init={trained_copy}", *options) == 2
    assert "whose start is gone, give its own output folder" in capsys.readouterr().err
    assert run(second, f"init={second}", *options) == 0
    again = checkpoint(second, 4)
    assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_two_processes_start_from_the_same_weights(
    run, trained: Path, tiny_options, tmp_path: Path
) -> None:
    options = [f"init={trained}", "optimizer.config.lr=1e-30", "regime.num_steps=2"]
    assert run(tmp_path / "one", *options, "dataset.batch_size=16") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.toy", str(tmp_path / "two"), "--no-rich", "--config"]
    subprocess.run(
        [*command, *recipe, *tiny_options, *options],
        check=True,
        capture_output=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    # Each rank fills the queue with its own momentum copy: had only the first one loaded the
    # weights, half of the rows would be others.
    one, two = checkpoint(tmp_path / "one", 2), checkpoint(tmp_path / "two", 2)
    for modality in ("audio", "text"):
        for step in (slice(0, 16), slice(16, 32)):
            rows = []
            for state in (one, two):
                order = state[f"{modality}_queue.clip_ids"][step].argsort()
                rows.append(state[f"{modality}_queue.embeddings"][step][order])
            torch.testing.assert_close(*rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("damage", ["half", "other model", "no weights", "other tokenizer"])
def test_a_source_that_does_not_fit_is_one_sentence(
    run, trained_copy: Path, tmp_path: Path, capsys, damage: str
) -> None:
    first = trained_copy
    options = [f"init={first}"]
    if damage == "half":
        for file in first.glob("checkpoints/step_*/model/**/*.pt"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "other model":
        options.append("model.config_overrides.embed_dim=10")
    elif damage == "other tokenizer":
        options.append("tokenizer.name=bert-base-uncased")
    else:
        for folder in first.glob("checkpoints/step_*/model"):
            shutil.rmtree(folder)
    capsys.readouterr()
    assert run(tmp_path / "second", *options) != 0
    written = capsys.readouterr().err
    errors = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written and len(errors) == 1
    assert str(first) in errors[0], errors


def test_the_best_checkpoint_is_the_one_with_the_highest_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, score in ((10, "3.5"), (20, "4.5"), (30, "4.0")):
        (tmp_path / "checkpoints" / f"step_{step}" / "model").mkdir(parents=True)
        (tmp_path / "checkpoints" / "scores").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "scores" / f"step_{step}.txt").write_text(score)
    (tmp_path / "checkpoints" / "step_40.tmp" / "model").mkdir(parents=True)
    assert find_checkpoint(tmp_path)[1].name == "step_20"
    (tmp_path / "model.json").write_text("{}")
    assert find_source(str(tmp_path)).model.parent.name == "step_20"
    last = tmp_path / "checkpoints" / "step_30"
    assert find_checkpoint(last) == (tmp_path, last)
    (tmp_path / "latest").symlink_to(last)
    assert find_checkpoint(tmp_path / "latest") == (tmp_path, last)
    monkeypatch.chdir(last)
    assert find_checkpoint(Path()) == (tmp_path, last)
    shutil.rmtree(tmp_path / "checkpoints" / "scores")
    assert find_checkpoint(tmp_path)[1].name == "step_30"


def test_names_that_are_no_source() -> None:
    assert find_source("random") is None and find_source("pretrained") is None
    with pytest.raises(RecipeError, match="`init` is 'pretraned'"):
        find_source("pretraned")
