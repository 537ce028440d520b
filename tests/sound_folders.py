"""A tiny bundle and folders of sounds, for tests of what uses a trained model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
from conftest import TINY_AUDIO, TINY_TEXT, make_tiny_model

from atr_moco_plugin.model import model_config
from atr_moco_plugin.retriever import BundleConfig, write_bundle
from atr_moco_plugin.text.tokenizer import train_wordpiece

RATE = 16_000
SENTENCES = ["a dog barks", "rain falls on a roof", "a car passes by", "a bell rings"]


def write_tiny_bundle(folder: Path, seed: int = 0, *, seconds: float = 1.0) -> Path:
    """BEATs and BERT in miniature with random weights; windows of ``seconds``, which overlap by
    half."""
    parts = {
        "embed_dim": 12,
        "audio": {"name": "beats", "config": TINY_AUDIO},
        "text": {"name": "bert", "config": TINY_TEXT},
        "head": {"name": "atm", "config": {"fusion": "blip"}},
    }
    config = BundleConfig(
        model=asdict(model_config(parts)),
        sample_rate=RATE,
        window_seconds=seconds,
        hop_seconds=seconds / 2,
        max_tokens=16,
        score="log_odds + cosine / temperature",
    )
    write_bundle(folder, config, make_tiny_model(seed), train_wordpiece(SENTENCES, 50))
    return folder


def write_sound(path: Path, number: int = 0, seconds: float = 0.5, rate: int = RATE) -> Path:
    """A tone in noise; another number is another sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 + 37 * (number % 100)) * time)
    soundfile.write(path, wave + rng.normal(0, 0.02, time.shape), rate)
    return path
