"""A run that goes on with another model than it began with, and the file that says what it has."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_tiny_model

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2 import processes
from atr_moco_plugin.hosts.fairseq2.runs.folder import save_model_config
from atr_moco_plugin.hosts.fairseq2.runs.model import check_model
from atr_moco_plugin.model import RetrievalModelConfig, built_config
from atr_moco_plugin.model.config import AdapterConfig, LoraConfig

Run = Callable[..., int]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("embed_dim=8", "embed_dim was 12 and is 8"),
        ("text_pooling=cls", "text_pooling was mean and is cls"),
        ("text.config.num_attention_heads=4", "text.config.num_attention_heads was 2 and is 4"),
        ("audio.config.dropout=0.2", "audio.config.dropout was 0.0 and is 0.2"),
        ("spec_augment.time_masks=1", "spec_augment was None and is {"),
        ("head.name=fusion", "head.name was atm and is fusion"),
        ("patch_dropout.time=0.25", "patch_dropout was None and is {'time': 0.25"),
    ],
)
def test_another_model_is_refused(
    run: Run, trained_copy: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    """Most options change no weight's shape: a run went on with another model, and a whole one was
    evaluated as another."""
    if option.startswith("audio"):  # the others have no step left
        shutil.rmtree(trained_copy / "checkpoints" / "step_4")
    before = (trained_copy / "model.json").read_bytes()
    assert run(trained_copy, f"model.config_overrides.{option}") == 2
    written = capsys.readouterr().err
    (error,) = [line for line in written.splitlines() if " ERROR: " in line]
    assert f"model.config_overrides.{said}" in error and "Traceback" not in written
    assert "start a new run from its weights with `init=RUN`" in error
    assert (trained_copy / "model.json").read_bytes() == before


def model_of(tmp_path: Path, text_pooling: str = "cls") -> RetrievalModelConfig:
    """A model, and a run in the folder that has a checkpoint."""
    (tmp_path / "checkpoints" / "step_2").mkdir(parents=True, exist_ok=True)
    model = make_tiny_model(text_pooling=text_pooling)
    return built_config(model.config, model)


def test_options_that_model_json_leaves_out_have_their_defaults(tmp_path: Path) -> None:
    """Another version has more of them or fewer, and so may a plugin."""
    config, checkpoints, cpu = model_of(tmp_path), tmp_path / "checkpoints", torch.device("cpu")
    check_model(tmp_path, checkpoints, config, cpu)
    values = json.loads((tmp_path / "model.json").read_text())
    del values["spec_augment"], values["text"]["config"]["layer_norm_eps"]
    del values["head"]["config"]["fusion"]
    (tmp_path / "model.json").write_text(json.dumps(values))
    check_model(tmp_path, checkpoints, config, cpu)
    values["text"]["config"]["layer_norm"] = 1
    (tmp_path / "model.json").write_text(json.dumps(values))
    check_model(tmp_path, checkpoints, config, cpu)
    values["text"]["name"] = "gone"
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="model.config_overrides.text.name was gone and is bert"):
        check_model(tmp_path, checkpoints, config, cpu)


def test_an_entry_of_an_architecture_that_comes_or_goes_is_a_change(tmp_path: Path) -> None:
    """``is_decoder`` changes no weight's shape."""
    config, checkpoints, cpu = model_of(tmp_path), tmp_path / "checkpoints", torch.device("cpu")
    text = replace(config.text, name="hf_text", config={"architecture": {"model_type": "bert"}})
    config = replace(config, text=text)
    check_model(tmp_path, checkpoints, config, cpu)
    architecture = {"model_type": "bert", "is_decoder": True}
    other = replace(config, text=replace(text, config={"architecture": architecture}))
    with pytest.raises(InputError, match=r"architecture\.is_decoder was not set and is True"):
        check_model(tmp_path, checkpoints, other, cpu)


def test_an_older_run_with_adapters_above_frozen_layers_goes_on(tmp_path: Path) -> None:
    """It has no ``targets``, where this version names the layers that are not frozen."""
    config, checkpoints, cpu = model_of(tmp_path), tmp_path / "checkpoints", torch.device("cpu")
    named = AdapterConfig(lora=LoraConfig(targets=["layers.1.query"]))
    older = replace(config, text=replace(config.text, adapter=AdapterConfig()))
    now = replace(config, text=replace(config.text, adapter=named))
    frozen = replace(older, text=replace(older.text, freeze=1))
    for stated in (None, older, replace(now, text=replace(now.text, freeze=1))):
        save_model_config(tmp_path, older)
        with pytest.raises(InputError, match="targets was None and is"):
            check_model(tmp_path, checkpoints, now, cpu, stated=stated)
    check_model(tmp_path, checkpoints, now, cpu, stated=frozen)
    written = json.loads((tmp_path / "model.json").read_text())
    assert written["text"]["adapter"]["lora"]["targets"] == ["layers.1.query"]
    check_model(tmp_path, checkpoints, now, cpu, stated=frozen)
    ranked = AdapterConfig(lora=replace(named.lora, rank=3))
    other = replace(now, text=replace(now.text, adapter=ranked))
    save_model_config(tmp_path, older)
    with pytest.raises(InputError, match=r"model: .*text.adapter.lora.rank was 8 and is 3\. Give"):
        check_model(tmp_path, checkpoints, other, cpu, stated=frozen)


def test_who_reads_model_json_sees_it_whole(tmp_path: Path) -> None:
    save_model_config(tmp_path, model_of(tmp_path))
    with (tmp_path / "model.json").open() as reader:
        save_model_config(tmp_path, model_of(tmp_path, "mean"))
        assert json.loads(reader.read())["text_pooling"] == "cls"
    assert json.loads((tmp_path / "model.json").read_text())["text_pooling"] == "mean"


def test_the_first_process_alone_reads_and_writes_model_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another read what the first had just written, or half of it, and went on alone."""
    (tmp_path / "model.json").write_text("half")
    monkeypatch.setattr(processes, "process_index", lambda: 1)
    monkeypatch.setattr(processes, "gather_values", lambda *_: [(None, "It is another.")])
    with pytest.raises(InputError, match="It is another"):
        check_model(tmp_path, tmp_path / "checkpoints", model_of(tmp_path), torch.device("cpu"))
    assert (tmp_path / "model.json").read_text() == "half"
