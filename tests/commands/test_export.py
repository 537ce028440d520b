"""``export`` from the command line: who made a run, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_bundle import make_bundle, make_clap_bundle, make_public_clap
from transformers import ClapModel

from atr_moco_plugin.commands import export as command
from atr_moco_plugin.commands.export import FORMS
from atr_moco_plugin.commands.main import main
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.exporting import EXPORTERS
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.runs import FAIRSEQ2, LAION_CLAP, TRANSFORMERS, Maker, made_by


def test_who_made_a_run(tmp_path: Path) -> None:
    for name, file, maker in [
        ("fairseq2", "config.yaml", FAIRSEQ2),
        ("step", "model/pp_00/tp_00/sdp_00.pt", FAIRSEQ2),
        ("trainer", "checkpoint-4/model.safetensors", TRANSFORMERS),
        ("trainer/checkpoint-4", "trainer_state.json", TRANSFORMERS),
        ("laion", "checkpoints/epoch_2.pt", LAION_CLAP),
        ("model", "config.json", None),
    ]:
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).touch()
        assert made_by(tmp_path / name) == maker
    assert made_by(tmp_path / "laion" / "checkpoints" / "epoch_2.pt") == LAION_CLAP
    assert made_by(Path("laion/clap-htsat-unfused")) is None


def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "no training run and no model" in error and "config.yaml (fairseq2)" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_a_bundle_is_told_to_be_one(
    bundle: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(bundle / name), str(bundle.parent / "out")]) == 2
    said = f"{bundle / name} is one file of a model or a run: give the folder, {bundle}."
    assert said in capsys.readouterr().err


def test_what_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "out")]) == 2
    assert "no model folder" in capsys.readouterr().err


def test_the_host_of_a_run_must_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").touch()
    missing = Maker("fairseq2", "not_installed_here", FAIRSEQ2.module)
    monkeypatch.setattr("atr_moco_plugin.retriever.runs.FAIRSEQ2", missing)
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "pip install 'atr-moco-plugin[not_installed_here]'" in capsys.readouterr().err


def test_every_form_is_there() -> None:
    assert set(EXPORTERS) == set(FORMS) - {"bundle"}


def test_a_public_model_becomes_a_bundle(tmp_path: Path) -> None:
    public, out = make_public_clap(tmp_path / "public"), tmp_path / "bundle"
    assert main(["export", str(public), str(out)]) == 0
    sentence = "a dog barks"
    found = [AudioTextRetriever.from_pretrained(x, device="cpu") for x in (public, out)]
    texts = [x.embed_text(sentence) for x in found]
    assert torch.allclose(*texts, atol=1e-6)


def test_another_form_of_a_bundle(tmp_path: Path) -> None:
    bundle = make_clap_bundle(tmp_path / "bundle")
    assert main(["export", str(bundle), str(tmp_path / "clap"), "--to", "clap"]) == 0
    clap = ClapModel.from_pretrained(tmp_path / "clap")
    assert isinstance(clap, ClapModel)


@pytest.mark.parametrize(
    ("form", "option"),
    [("clap", "--window"), ("clap", "--hop"), ("clap", "--figures"), ("onnx", "--figures")],
)
def test_an_option_that_the_form_has_no_place_for_is_refused(
    tmp_path: Path, form: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", "runs/dogs", str(out), "--to", form, option, "1"]) == 2
    said = f"ERROR: {option} does nothing with --to {form}: leave it out.\n"
    assert capsys.readouterr().err == said and not out.exists()


def test_a_bundle_is_copied_as_it_is(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(bundle), str(tmp_path / "copy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(tmp_path / "copy")
    for file in ("config.json", "model.safetensors", "tokenizer/tokenizer.json"):
        assert (tmp_path / "copy" / file).read_bytes() == (bundle / file).read_bytes()
    assert main(["export", str(bundle), str(tmp_path / "other"), "--window", "3"]) == 2
    assert "--window is for training runs" in capsys.readouterr().err


def test_what_is_exported_has_the_names_that_were_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def export(retriever: AudioTextRetriever, out: Path) -> None:
        found.append(retriever.name)
        raise InputError(f"{retriever.name} cannot be one")

    monkeypatch.setitem(EXPORTERS, "clap", export)
    bundle = make_clap_bundle(tmp_path / "bundle")
    assert main(["export", str(bundle), str(tmp_path / "out"), "--to", "clap"]) == 2
    assert capsys.readouterr().err == f"ERROR: {bundle} cannot be one\n"

    def write(folder: Path) -> None:
        found.append(folder.name)
        make_clap_bundle(folder)

    monkeypatch.setattr(command, "writer", lambda options: write)
    main(["export", "runs/dogs", str(tmp_path / "dogs"), "--to", "clap"])
    assert found == [str(bundle), "dogs", "runs/dogs"]  # the second is the title of a card


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Of a tiny model with random weights."""
    return make_bundle(tmp_path / "bundle")
