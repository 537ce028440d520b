"""What a model needs for a pair, measured by running it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.finetuning.facts import Facts, PartFacts, data_facts, machine_facts, measured
from atr_moco_plugin.finetuning.start import Start, Started
from atr_moco_plugin.model.clap import clip_features
from atr_moco_plugin.text.checks import text_positions

_CLIPS = 2
_CAPTIONS = 8
_TOKENS = 24
"""Of a caption; the median of AudioCaps is about 12."""


def gather_facts(
    start: Start,
    data: AudioTextDataset,
    device: torch.device,
    *,
    train: str = "train",
    valid: str = "valid",
    processes: int = 1,
) -> Facts:
    """Everything that a plan is made from.

    The model is built for it on the CPU, with nothing frozen, and each tower runs on noise.

    Args:
        start: what the model starts from.
        data: the open data set.
        device: where the training runs.
        train: the split to train on.
        valid: the split to validate on, which need not be there.
        processes: that train together.

    Raises:
        InputError: if there is no split to train on.
    """
    started = start.unfrozen().build()
    model: Any = started.model
    seconds = min(10.0, start.window_seconds or 10.0)
    audio, text = _inputs(started, seconds)
    parts = {
        "audio": _part(model.audio, start.pretrained["audio"], audio, _CLIPS),
        "text": _part(model.text, start.pretrained["text"], text, _CAPTIONS),
    }
    total = sum(p.numel() for p in model.parameters())
    return Facts(
        **data_facts(data, train, valid),
        **machine_facts(device, processes),
        audio=parts["audio"],
        text=parts["text"],
        other_parameters=total - parts["audio"].parameters - parts["text"].parameters,
        measured_seconds=seconds,
        window_seconds=start.window_seconds,
        together=start.together,
        matches=start.matches,
        head_trained=start.head_trained,
        keeps=start.kind != "clap",
    )


def _part(tower: Any, pretrained: bool, inputs: dict[str, Any], items: int) -> PartFacts:
    run: Callable[[], Any] = lambda: tower(**inputs)  # noqa: E731
    size, seconds = measured(run, tower.parameters())
    encoder: nn.Module = tower.encoder
    layers = getattr(tower if hasattr(tower, "layers") else encoder, "layers", None)
    return PartFacts(
        parameters=sum(p.numel() for p in encoder.parameters()),
        layers=len(layers) if isinstance(layers, (nn.ModuleList, list, tuple)) else 0,
        pretrained=pretrained,
        bytes_each=size // items,
        seconds_each=seconds / items,
    )


def _inputs(started: Started, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the two towers: noise, and sentences of one token."""
    model: Any = started.model
    device = next(model.parameters()).device
    rng = np.random.default_rng(0)
    tokens = min(_TOKENS, text_positions(model.text.encoder) or _TOKENS)
    ids = torch.ones(_CAPTIONS, tokens, dtype=torch.int64, device=device)
    if started.clap is None:
        samples = round(seconds * model.sample_rate)
        noise = 0.1 * rng.standard_normal((_CLIPS, samples), np.float32)
        audio: dict[str, Tensor] = {"waveforms": torch.from_numpy(noise).to(device)}
        return audio, {"input_ids": ids, "mask": ids.bool()}
    extractor = started.feature_extractor
    noise = 0.1 * rng.standard_normal(round(seconds * extractor.sampling_rate), np.float32)
    features = torch.stack([clip_features(extractor, noise, seed=0)] * _CLIPS).to(device)
    longer = torch.zeros(_CLIPS, 1, dtype=torch.bool, device=device)
    return {"input_features": features, "is_longer": longer}, {
        "input_ids": ids,
        "attention_mask": ids,
    }
