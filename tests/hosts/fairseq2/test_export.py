"""A run of the toy recipe becomes a bundle, whose figures are those of the run."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from ruamel.yaml import YAML

from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import open_checkpoint
from atr_moco_plugin.hosts.fairseq2.export import export_run
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.bundle import read_bundle
from atr_moco_plugin.retriever.exported import ExportOptions


def export(run: Path, out: Path, **options: object) -> Path:
    export_run(run, ExportOptions(**options)).write(out)
    return out


def test_a_bundle_has_the_model_and_what_evaluated_it(trained: Path, tmp_path: Path) -> None:
    bundle = read_bundle(export(trained, tmp_path / "bundle"))
    checkpoint = open_checkpoint(trained)
    state = checkpoint.model.state_dict()
    assert bundle.state.keys() == state.keys()
    assert all(torch.equal(bundle.state[name], x) for name, x in state.items())
    config = bundle.config
    assert config.kind == "retrieval" and config.sample_rate == checkpoint.model.sample_rate
    assert (config.window_seconds, config.hop_seconds) == (1.0, 1.0)
    assert config.temperature == checkpoint.temperature
    assert config.score == "log_odds + cosine / temperature"
    assert config.packages["audio_encoders/beats"].startswith("atr-moco-plugin ")
    assert config.origin["criterion"] == "moco_atc_atm"
    assert config.origin["checkpoint"] == checkpoint.folder.name
    assert config.origin["step"] in (2, 4)
    assert config.origin["data"]["family"] == "toy"
    # Nothing in it says where the run was on this machine.
    assert str(trained.parent) not in (tmp_path / "bundle" / "config.json").read_text()


def test_the_card_has_the_figures_of_the_exported_checkpoint(trained: Path, tmp_path: Path) -> None:
    result = json.loads((trained / "retrieval.json").read_text())
    best = result["checkpoint"].split("/")[1]
    other = {"step_2": "step_4", "step_4": "step_2"}[best]
    card = (export(trained, tmp_path / "best") / "README.md").read_text()
    assert f"{result['splits']['valid']['dual']['r_sum']:.1f}" in card
    assert "toy valid: 6 clips, 30 captions" in card
    card = (export(trained, tmp_path / "other", checkpoint=other) / "README.md").read_text()
    assert "toy valid" not in card and "no evaluation of this checkpoint" in card
    with pytest.raises(InputError, match=f"{best}, but what is exported is .*{other}"):
        export_run(trained, ExportOptions(checkpoint=other, figures=trained / "retrieval.json"))


def test_windows_as_wanted(trained: Path, tmp_path: Path) -> None:
    config = read_bundle(export(trained, tmp_path / "a", window_seconds=2, hop_seconds=0.5)).config
    assert (config.window_seconds, config.hop_seconds) == (2.0, 0.5)
    with pytest.raises(InputError, match="--hop is 3 s, but a window is 1 s"):
        export_run(trained, ExportOptions(hop_seconds=3))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.yaml", "config.yaml is missing"),
        ("model.json", "model.json is missing"),
        ("tokenizer", "tokenizer is missing"),
        ("checkpoints", "no checkpoint there"),
    ],
)
def test_what_is_missing_is_named(trained_copy: Path, missing: str, message: str) -> None:
    place = trained_copy / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(InputError, match=message):
        export_run(trained_copy, ExportOptions())


def test_a_run_that_is_still_written_has_its_whole_checkpoints(trained_copy: Path) -> None:
    """The newest folder has no model yet, and there are no figures before the end."""
    (trained_copy / "retrieval.json").unlink()
    (trained_copy / "checkpoints" / "step_6").mkdir()
    exported = export_run(trained_copy, ExportOptions(checkpoint="last"))
    assert exported.config.origin["checkpoint"] == "step_4" and exported.figures == {}


def test_half_written_weights_are_named(trained_copy: Path, tmp_path: Path) -> None:
    file = next((trained_copy / "checkpoints" / "step_4" / "model").rglob("*.pt"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=f"{file.name} cannot be read"):
        export_run(trained_copy, ExportOptions(checkpoint="step_4"))


def test_weights_that_are_not_finite_are_refused(trained_copy: Path, tmp_path: Path) -> None:
    exported = export_run(trained_copy, ExportOptions())
    with torch.no_grad():
        exported.model.audio.projection.weight[0] = torch.nan
    with pytest.raises(InputError, match="audio.projection.weight .* NaN or infinite"):
        exported.write(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_criterion_without_matching_has_no_score(trained_copy: Path, tmp_path: Path) -> None:
    """Its head is in the model and was never trained."""
    file = trained_copy / "config.yaml"
    yaml = YAML(typ="safe", pure=True)
    config = yaml.load(file)
    config["criterion"] = {"name": "moco_atc", "config": {}}
    with file.open("w") as stream:
        yaml.dump(config, stream)
    assert export_run(trained_copy, ExportOptions()).config.score is None


def test_a_bundle_is_replaced_and_nothing_else(trained: Path, tmp_path: Path) -> None:
    out = export(trained, tmp_path / "bundle")
    export(trained, out, checkpoint="step_2")
    assert read_bundle(out).config.origin["step"] == 2
    assert load_file(out / "model.safetensors")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no bundle"):
        export(trained, tmp_path / "other")
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_a_bundle_embeds_as_the_evaluation_did(
    evaluation: Callable[..., int], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evaluation"
    assert evaluation(out, f"run={trained}", "split=test", "save_embeddings=true") == 0
    with safe_open(out / "embeddings.safetensors", "pt") as file:
        expected = {name: file.get_tensor(name) for name in ("audio", "text")}
        owner = file.get_tensor("caption_to_audio")
        keys = json.loads(file.metadata()["clips"])
    dataset = open_toy(ToyConfig(num_train=30, num_valid=6, num_test=6))
    clips = dataset.clips("test")
    assert [clip.key for clip in clips] == keys
    retriever = AudioTextRetriever.from_pretrained(
        export(trained, tmp_path / "bundle", checkpoint="best"), device="cpu"
    )
    # The toy clips last 4 s, and the evaluation took the first second of each.
    dataset.read_with(AudioReader(retriever.sample_rate))
    waveforms = [dataset.load(clip, retriever.sample_rate) for clip in clips]
    audio = torch.from_numpy(retriever.embed_windows(waveforms))
    text = retriever.embed_text([x for clip in clips for x in clip.captions])
    assert (audio - expected["audio"]).abs().max() < 1e-5
    assert (text - expected["text"]).abs().max() < 1e-5
    figures = json.loads((out / "retrieval.json").read_text())["splits"]["test"]["dual"]
    found = retrieval_metrics(audio @ text.T, owner)
    assert {name: figures[name] for name in found} == pytest.approx(found)
    # The card takes the figures of this evaluation too.
    figured = export_run(trained, ExportOptions(figures=out / "retrieval.json"))
    assert list(figured.figures) == ["test"]
