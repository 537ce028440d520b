"""Runs of fairseq2 with frozen encoders: keys, checkpoints, a resumed run, its bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq2")

from kill_and_resume import fork, run_to_the_end

from atr_moco_plugin.hosts.fairseq2.export import export_run
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.exported import ExportOptions

Run = Callable[..., int]
FREEZE = [
    "model.config_overrides.audio.config.encoder_layers=2",
    "model.config_overrides.audio.freeze=1",
    "model.config_overrides.text.freeze=all",
]


def state_of(out: Path, step: int, part: str = "model") -> dict:
    (file,) = (out / "checkpoints" / f"step_{step}" / part).rglob("*.pt")
    return torch.load(file, weights_only=True)


def size_of(value: object) -> int:
    """Numbers in all tensors of a nested state."""
    if isinstance(value, torch.Tensor):
        return value.numel() if value.ndim else 0
    values = value.values() if isinstance(value, dict) else value
    return sum(map(size_of, values)) if isinstance(value, (dict, list, tuple)) else 0


@pytest.mark.slow
def test_a_run_with_frozen_parts(tiny_options: list[str], tmp_path: Path) -> None:
    out, stopped = tmp_path / "run", tmp_path / "stopped"
    options = [*tiny_options, *FREEZE, "regime.keep_last_n_checkpoints=3"]
    run_to_the_end(fork, out, options)
    first, last = state_of(out, 2), state_of(out, 4)
    assert not any("text_m.module.encoder" in name for name in first)
    assert "text_m.module.projection.weight" in first
    assert any(name.startswith("audio_m.module.encoder.encoder.layers.1.") for name in first)
    assert not any(name.startswith("audio_m.module.encoder.patch_") for name in first)
    below = ("model.text.encoder.", "model.audio.encoder.patch", "model.audio.encoder.layer_norm",
             "model.audio.encoder.post", "model.audio.encoder.encoder.pos_conv",
             "model.audio.encoder.encoder.relative", "model.audio.encoder.encoder.layer_norm",
             "model.audio.encoder.encoder.layers.0.")  # fmt: skip
    frozen = {name for name in first if name.startswith(below)}
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert frozen and not frozen & moved
    assert {"model.audio.encoder.encoder.layers.1.fc1.weight", "model.text.projection.weight"} <= (
        moved
    )
    trained = {n: x for n, x in first.items() if n.startswith("model.") and n not in frozen}
    moments = size_of(state_of(out, 2, "optimizer"))
    assert moments == 2 * (size_of(trained) + 1)  # of the temperature too

    # A run that was stopped ends where one without a stop does.
    shutil.copytree(out, stopped)
    shutil.rmtree(stopped / "checkpoints" / "step_4")
    (stopped / "checkpoints" / "scores" / "step_4.txt").unlink()
    run_to_the_end(fork, stopped, options)
    again = state_of(stopped, 4)
    assert again.keys() == last.keys()
    assert all(torch.equal(again[name], value) for name, value in last.items())

    # All of it is in a bundle, in which nothing is frozen.
    bundle = tmp_path / "bundle"
    export_run(out, ExportOptions(checkpoint="step_4")).write(bundle)
    retriever = AudioTextRetriever.from_pretrained(bundle)
    assert retriever.embed_text(["a dog barks"]).shape == (1, 12)
    assert json.loads((out / "model.json").read_text())["text"]["freeze"] == "none"


@pytest.mark.slow
def test_more_layers_than_there_are_end_a_run_in_one_sentence(
    tiny_options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    status = fork(out, [*tiny_options, "model.config_overrides.audio.freeze=2"]).wait(120)
    log = out.with_suffix(".log").read_text()
    (error,) = [line for line in log.splitlines() if " ERROR: " in line]
    assert status == 2 and "Traceback" not in log
    assert "`model.audio.freeze` is 2, but the encoder BeatsEncoder has 1 layers" in error
