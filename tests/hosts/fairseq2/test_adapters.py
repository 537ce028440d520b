"""Runs with low-rank adapters: resumed, evaluated, exported, and what another run starts from."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)
pytest.importorskip("peft", reason="needs the extra peft")

from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import open_checkpoint
from atr_moco_plugin.hosts.fairseq2.export import export_run
from atr_moco_plugin.hosts.fairseq2.runs.folder import read_state
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.bundle import read_bundle
from atr_moco_plugin.retriever.exported import ExportOptions

Run = Callable[..., int]
PART = "model.config_overrides.{}.adapter.lora.{}"
ADAPTERS = [PART.format("audio", "rank=2"), PART.format("text", "targets=[query,ffn_in]")]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, tiny_options: list[str]) -> Path:
    """A finished run with adapters, to be read and not changed."""
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    out = tmp_path_factory.mktemp("adapted") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")
        options = [*tiny_options, *ADAPTERS, "optimizer.config.lr=0.05"]
        monkeypatch.setattr(sys, "argv", ["recipe", str(out), "--no-rich", "--config", *options])
        run_recipe(ToyRecipeConfig)
    return out


def checkpoint(run: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (run / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


def test_only_the_adapters_of_the_encoders_have_moved(adapted: Path) -> None:
    before, after = checkpoint(adapted, 2), checkpoint(adapted, 4)
    names = [x for x in after if x.startswith(("model.audio.encoder", "model.text.encoder"))]
    moved = {name for name in names if not torch.equal(before[name], after[name])}
    assert moved == {name for name in names if ".lora_" in name}
    assert len(moved) == 2 * (4 + 2)
    assert not torch.equal(before["model.audio.projection.weight"],
                           after["model.audio.projection.weight"])  # fmt: skip


def test_an_evaluation_finds_the_same_figures(
    evaluation: Run, adapted: Path, tmp_path: Path
) -> None:
    assert evaluation(tmp_path / "test", f"run={adapted}", "split=test", "rerank_k=[3]") == 0
    found, expected = (
        json.loads((out / "retrieval.json").read_text())["splits"]["test"]
        for out in (tmp_path / "test", adapted)
    )
    assert found["dual"] == pytest.approx(expected["dual"])


def test_a_bundle_is_plain_and_embeds_as_the_run(adapted: Path, tmp_path: Path) -> None:
    export_run(adapted, ExportOptions()).write(tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    assert not any("lora" in x or "base_layer" in x or "adapter" in x for x in bundle.state)
    assert bundle.config.model["audio"]["adapter"] is bundle.config.model["text"]["adapter"] is None
    model = open_checkpoint(adapted).model
    assert any("lora" in x for x in model.state_dict())
    waveform = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, _ = model.audio(waveform)
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    found = retriever.embed_audio([waveform[0].numpy()], sample_rate=16_000)
    assert (found - expected).abs().max() < 1e-5


def test_a_stopped_run_goes_on_to_the_same_end(run: Run, adapted: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(adapted, copy)
    shutil.rmtree(copy / "checkpoints" / "step_4")
    (copy / "checkpoints" / "scores" / "step_4.txt").unlink()
    assert run(copy, *ADAPTERS, "optimizer.config.lr=0.05") == 0
    expected, found = checkpoint(adapted, 4), checkpoint(copy, 4)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], x) for name, x in expected.items())


def test_a_run_of_before_names_were_kept_goes_on_above_frozen_layers(
    run: Run, tmp_path: Path
) -> None:
    """It has no ``targets`` in its ``model.json``, and could neither go on without nor with."""
    audio = "model.config_overrides.audio"
    options = [PART.format("audio", "rank=2"), f"{audio}.freeze=1"]
    options += [f"{audio}.config.encoder_layers=2"]
    out = tmp_path / "run"
    assert run(out, *options) == 0
    expected = checkpoint(out, 4)
    shutil.rmtree(out / "checkpoints" / "step_4")
    (out / "checkpoints" / "scores" / "step_4.txt").unlink()
    named = (out / "model.json").read_text()
    values = json.loads(named)
    assert values["audio"]["adapter"]["lora"]["targets"]
    values["audio"]["adapter"]["lora"]["targets"] = None
    (out / "model.json").write_text(json.dumps(values))
    assert run(out, *options) == 0
    assert (out / "model.json").read_text() == named
    found = checkpoint(out, 4)
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "model.config_overrides.audio.adapter was {'lora': {'rank': 2"),
        ([PART.format("audio", "rank=3"), ADAPTERS[1]], "audio.adapter.lora.rank was 2 and is 3"),
        ([ADAPTERS[0]], "model.config_overrides.text.adapter was .* and is None"),
    ],
)
def test_a_run_cannot_go_on_with_other_adapters(
    run: Run, adapted: Path, tmp_path: Path, capsys, options: list[str], said: str
) -> None:
    shutil.copytree(adapted, tmp_path / "run")
    capsys.readouterr()
    assert run(tmp_path / "run", *options, "optimizer.config.lr=0.05", "regime.num_steps=6") != 0
    written = capsys.readouterr().err
    (error,) = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written
    assert "cannot go on with another" in error
    assert re.search(said, error), error
    # It is left as it was, so that the run still goes on with the adapters that it has.
    assert (tmp_path / "run" / "model.json").read_text() == (adapted / "model.json").read_text()


@pytest.mark.parametrize("adapters", [[], [PART.format("audio", "rank=1")]])
def test_another_run_starts_from_the_merged_weights(
    run: Run, adapted: Path, tmp_path: Path, adapters: list[str]
) -> None:
    step = int(open_checkpoint(adapted).folder.name.removeprefix("step_"))
    options = [f"init={adapted}", "optimizer.config.lr=1e-30", "regime.num_steps=2"]
    assert run(tmp_path / "next", *options, *adapters) == 0
    merged = export_run(adapted, ExportOptions(checkpoint=f"step_{step}")).model.state_dict()
    found = checkpoint(tmp_path / "next", 2)
    for name, tensor in merged.items():
        names = [f"model.{name}"]
        if adapters and name.startswith("audio.encoder") and ".self_attn." in name:
            layer, _, parameter = name.rpartition(".")
            names.append(f"model.{layer}.base_layer.{parameter}")
        (own,) = [x for x in names if x in found]
        torch.testing.assert_close(found[own], tensor, rtol=0, atol=1e-6, msg=name)
    lora = [x for x in found if x.startswith("model.") and "lora_B" in x]
    assert len(lora) == (4 if adapters else 0)
    assert all(found[name].abs().max() < 1e-20 for name in lora)


@pytest.mark.slow
def test_sharded_training_takes_adapters(tiny_options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.toy", str(tmp_path / "two"), "--no-rich", "--config"]
    subprocess.run(
        [*command, *recipe, *tiny_options, *ADAPTERS, "trainer.data_parallelism=fsdp"],
        check=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert len(read_state(tmp_path / "two" / "checkpoints" / "step_4")) == 2
    export_run(tmp_path / "two", ExportOptions()).write(tmp_path / "bundle")
    AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
