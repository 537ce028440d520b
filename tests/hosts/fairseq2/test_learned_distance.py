"""A run of m-LTM ranks by its learned distance: in training, in the evaluation and as a bundle."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.finetuning.start import find_start
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import open_checkpoint
from atr_moco_plugin.hosts.fairseq2.export import export_run
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.bundle import read_bundle
from atr_moco_plugin.retriever.exported import ExportOptions
from atr_moco_plugin.text.tokenizer import tokenize

Run = Callable[..., int]


def state_of(run: Path, step: int) -> dict[str, Tensor]:
    (file,) = (run / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", ["m_ltm", "m_ltm_full"])
def test_evaluation_and_bundle_rank_by_the_distance(
    run: Run,
    evaluation: Callable[..., int],
    tmp_path: Path,
    name: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    assert (
        run(out, f"criterion.name={name}", "criterion.config={}", "optimizer.config.lr=0.05") == 0
    )
    checkpoint = open_checkpoint(out)
    factor = checkpoint.factor
    step = int(checkpoint.folder.name.removeprefix("step_"))
    metric = state_of(out, step)["metric"]
    expected = torch.nn.functional.softplus(metric).sqrt() if name == "m_ltm" else metric
    assert torch.equal(factor, expected) and checkpoint.temperature == pytest.approx(0.03)

    assert evaluation(tmp_path / "e", f"run={out}", "split=test", "save_embeddings=true") == 0
    saved = load_file(tmp_path / "e" / "embeddings.safetensors")
    audio, text = saved["audio"], saved["text"]
    assert audio.shape == (6, 16) and text.shape == (30, 16)
    result = json.loads((tmp_path / "e" / "retrieval.json").read_text())
    assert result["score"] == "learned distance"
    figures = result["splits"]["test"]
    found = retrieval_metrics(audio @ text.T, saved["caption_to_audio"])
    assert {x: figures["dual"][x] for x in found} == pytest.approx(found)
    refused = evaluation(tmp_path / "d", f"run={out}", "split=test", "correct=[nnn,dual_softmax]")
    assert refused == 2 and "scores that are at most 0" in capfd.readouterr().err
    # The run's own evaluation, with the criterion in memory, has the same figures.
    in_run = json.loads((out / "retrieval.json").read_text())["splits"]["test"]["dual"]
    assert in_run == pytest.approx(figures["dual"], abs=1e-4)

    export_run(out, ExportOptions()).write(tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.config.distance == ("diagonal" if name == "m_ltm" else "full")
    assert "learned distance" in (tmp_path / "bundle" / "README.md").read_text()
    assert bundle.config.origin["criterion"] == name and bundle.config.score is None
    retriever = AudioTextRetriever.from_pretrained(tmp_path / "bundle", device="cpu")
    assert retriever.embed_dim == 16
    dataset = open_toy(ToyConfig(num_train=30, num_valid=6, num_test=6))
    dataset.read_with(AudioReader(retriever.sample_rate))
    clips = dataset.clips("test")
    waveforms = [dataset.load(clip, retriever.sample_rate) for clip in clips]
    captions = [x for clip in clips for x in clip.captions]
    mapped = torch.from_numpy(retriever.embed_windows(waveforms)), retriever.embed_text(captions)
    # The last two numbers of a side meet zeros of the other one, and are roots of small numbers.
    assert (mapped[0] - audio).abs().max() < 3e-4 and (mapped[1] - text).abs().max() < 3e-4
    assert (mapped[0] @ mapped[1].T - audio @ text.T).abs().max() < 1e-6

    # What the towers say without the last layer, and D in float64 of that.
    with pytest.warns(UserWarning, match="ranks by a learned distance, which is left behind"):
        start = find_start(tmp_path / "bundle")
        plain = start.build().model.eval()
    assert start.temperature is None and plain.embed_dim == 12
    embeddings = []
    backbone = retriever._backbone
    tokens = tokenize(backbone.tokenizer, captions, backbone.config.max_tokens)
    with torch.no_grad():
        for tower, inputs in (
            (plain.audio, backbone.audio_inputs(waveforms)),
            (plain.text, backbone.text_inputs(*tokens)),
        ):
            embeddings.append(tower(**inputs)[0].double())
    difference = embeddings[0][:, None] - embeddings[1]
    exact = factor.double()
    distances = difference * exact if exact.dim() == 1 else difference @ exact.T
    squares = distances.square().sum(dim=2)
    largest = 4 * torch.linalg.matrix_norm(exact.diag() if exact.dim() == 1 else exact, 2) ** 2
    assert ((mapped[0] @ mapped[1].T).double() + squares / largest).abs().max() < 1e-6
    cosines = embeddings[0] @ embeddings[1].T
    assert (squares - (2 - 2 * cosines)).abs().max() > 1e-4  # no longer that of equal weights
    with pytest.warns(UserWarning, match="left behind"):
        assert find_start(out).temperature is None


def test_a_rate_of_the_preset_is_not_warned_of_and_one_that_was_set_is(
    run: Run, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    options = (
        "criterion.name=m_ltm",
        "criterion.config={}",
        "model.config_overrides.text.freeze=all",
    )

    def warned(name: str, *rates: str) -> list[str]:
        recwarn.clear()
        assert run(tmp_path / name, *options, *rates) == 0
        found = [str(x.message) for x in recwarn]
        return [x.partition(" is ")[0] for x in found if "the rate is for nothing" in x]

    assert warned("preset") == []
    rates = ("optimizer.config.temperature_lr=1e-3", "optimizer.config.text_lr=1e-3")
    assert sorted(warned("set", *rates)) == ["`temperature_lr`", "`text_lr`"]


def test_a_stopped_run_goes_on_to_the_last_bit(run: Run, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    options = ("criterion.name=m_ltm", "criterion.config={sinkhorn_iterations: 5}")
    assert run(whole, *options) == 0
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_4")
    (resumed / "checkpoints" / "scores" / "step_4.txt").unlink()
    assert run(resumed, *options) == 0
    expected, found = state_of(whole, 4), state_of(resumed, 4)
    assert expected.keys() == found.keys()
    assert all(torch.equal(x, found[key]) for key, x in expected.items())
    assert not torch.equal(expected["metric"], state_of(whole, 2)["metric"])
