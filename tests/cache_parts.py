"""A data set of small files, and a tiny model whose encoders stand still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from conftest import make_tiny_model
from torch import Tensor

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.model import RetrievalModel, freeze_encoder

RATE = 16_000
SECONDS = 0.5


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    """A letter is a token, at most 12."""
    rows = [[5 + ord(letter) % 45 for letter in text[:12]] for text in texts]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = torch.tensor(own)
    return ids, ids > 0


def write_sounds(folder: Path, count: int = 9) -> list[Clip]:
    """Noise of 0.2, 0.35, 0.5, 0.65 ... s."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for k in range(count):
        noise = np.random.default_rng(k).normal(0, 0.1, round(RATE * (0.2 + 0.15 * (k % 5))))
        soundfile.write(folder / f"{k}.wav", noise.astype(np.float32), RATE, subtype="PCM_16")
        captions = (f"sound {k}", "a shared one", f"noise nr {k}")[: 1 + k % 3]
        clips.append(Clip(f"clip{k}", captions, str(folder / f"{k}.wav")))
    return clips


def frozen_model(
    audio: bool = True, text: bool = True, seed: int = 0, **options: object
) -> RetrievalModel:
    """The tiny model with one encoder frozen, or both."""
    model = make_tiny_model(seed, **options)  # type: ignore[arg-type]
    freeze_encoder(model.audio, "all" if audio else "none")
    freeze_encoder(model.text, "all" if text else "none")
    return model
