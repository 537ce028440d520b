"""Bundles and public models in miniature, random weights, and recordings for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from conftest import TINY_AUDIO, TINY_TEXT
from numpy.typing import NDArray
from trainer_world import RATE, make_clap, make_extractor
from transformers import ClapModel

from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.model import build_model, built_config, model_config
from atr_moco_plugin.retriever import (
    BundleConfig,
    clap_options,
    clap_pair,
    packages_of,
    write_bundle,
)
from atr_moco_plugin.text.tokenizer import train_wordpiece

SENTENCES = ["a dog barks far away", "rain falls on a tin roof", "a siren wails, then a dog barks"]
SCORE = "log_odds + cosine / temperature"


def make_bundle(
    folder: Path,
    seed: int = 0,
    seconds: float = 1.0,
    padding: str = "exact",
    sentences: Sequence[str] = SENTENCES,
    patch: int = 16,
    **options: Any,
) -> Path:
    """A bundle of BEATs and BERT, with a matching head; windows of ``seconds``. Its tokenizer knows
    the words of ``sentences``; a token has ``patch`` frames."""
    tokenizer = train_wordpiece(sentences)
    torch.manual_seed(seed)
    beats = {**TINY_AUDIO, "padding_mask": padding, "input_patch_size": patch}
    config = model_config(
        {
            "embed_dim": 12,
            "audio": {"name": "beats", "config": beats},
            "text": {"name": "bert", "config": {**TINY_TEXT, "vocab_size": len(tokenizer)}},
            "head": {"name": "atm"},
        }
    )
    model = build_model(config)
    values: Mapping[str, Any] = {
        "model": asdict(built_config(config, model)),
        "sample_rate": model.sample_rate,
        "window_seconds": seconds,
        "hop_seconds": seconds,
        "max_tokens": 16,
        "score": SCORE,
        "packages": packages_of(config),
        **options,
    }
    write_bundle(folder, BundleConfig(**values), model, tokenizer)
    return folder


def make_clap_bundle(folder: Path, fusion: bool = False, **options: Any) -> Path:
    """A bundle of a ClapModel with a fusion head; windows of 1 s at 8 kHz, or what ``options``
    say."""
    tokenizer = train_wordpiece(SENTENCES)
    clap, extractor = _clap_parts(len(tokenizer), fusion)
    head = FusionHeadConfig(layers=1, heads=2)
    values: Mapping[str, Any] = {
        "kind": "clap",
        "model": clap_options(clap.config, head),
        "sample_rate": RATE,
        "window_seconds": 1.0,
        "hop_seconds": 1.0,
        "max_tokens": 38,
        "score": SCORE,
        **options,
    }
    write_bundle(folder, BundleConfig(**values), clap_pair(clap, head), tokenizer, extractor)
    return folder


def make_public_clap(folder: Path, fusion: bool = False) -> Path:
    """A ClapModel with its processor's files, as ``save_pretrained`` writes them."""
    tokenizer = train_wordpiece(SENTENCES)
    clap, extractor = _clap_parts(len(tokenizer), fusion)
    for part in (clap, extractor, tokenizer):
        part.save_pretrained(folder)
    return folder


def write_noise(file: Path, seconds: float, rate: int = 16_000, seed: int = 0) -> Path:
    """A file of noise whose loudness and colour change with time."""
    soundfile.write(file, noise(round(seconds * rate), seed), rate)
    return file


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """``[samples]`` float32 noise whose loudness and colour change with time."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(samples).astype(np.float32)
    slow = np.linspace(0, 1, samples, dtype=np.float32) ** (1 + seed % 3)
    smooth = np.convolve(x, np.ones(8, np.float32) / 8, "same").astype(np.float32)
    mixed: NDArray[np.float32] = 0.1 * (slow * x + (1 - slow) * smooth)
    return mixed


def _clap_parts(words: int, fusion: bool) -> tuple[ClapModel, Any]:
    audio = {"enable_fusion": True, "aff_block_r": 2} if fusion else {}
    extractor = make_extractor(1, truncation="fusion" if fusion else "rand_trunc")
    return make_clap(words, **audio), extractor
