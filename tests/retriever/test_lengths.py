"""The shortest sound that a model takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from tiny_bundle import make_bundle, noise

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import build_model, model_config
from atr_moco_plugin.retriever import AudioTextRetriever, read_bundle
from atr_moco_plugin.retriever.exported import Exported

PATCH, LEAST = 32, 5_360  # frames of a token of BEATs, and samples of one


def test_a_sound_that_is_too_short_for_the_model_is_named(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", patch=PATCH)
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    soundfile.write(tmp_path / "short.wav", noise(4_000), 16_000)
    sounds = [(noise(9_000), 16_000), (noise(8_000), 16_000), tmp_path / "short.wav"]
    message = r"short\.wav: lasts 0\.250 s, and this model needs at least 0\.335 s"
    with pytest.raises(InputError, match=message):
        retriever.embed_audio(sounds)
    with pytest.raises(InputError, match=r"^recording 1: lasts 0\.250 s"):
        retriever.embed_audio([(noise(8_000), 16_000), (noise(4_000), 16_000)])
    assert retriever.embed_audio(noise(LEAST), sample_rate=16_000).isfinite().all()


def test_windows_are_not_shorter_than_a_token(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", seconds=0.3, patch=PATCH)
    message = r"windows of 0\.3 s, but its audio encoder needs at least 0\.335 s"
    with pytest.raises(InputError, match=message):
        AudioTextRetriever.from_pretrained(bundle, device="cpu")
    config = read_bundle(bundle).config
    model = build_model(model_config(config.model))
    exported = Exported(config=config, model=model, tokenizer=bundle / "tokenizer")
    with pytest.raises(InputError, match=message):
        exported.write(tmp_path / "new")
    assert not (tmp_path / "new").exists()
