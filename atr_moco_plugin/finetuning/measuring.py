"""What a model needs for a pair, measured by running it once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.finetuning.facts import Facts, PartFacts, data_facts, machine_facts, measured
from atr_moco_plugin.finetuning.sizes import MATCHING_PASSES
from atr_moco_plugin.finetuning.start import Start, Started
from atr_moco_plugin.model.clap import clip_features
from atr_moco_plugin.text.checks import text_positions
from atr_moco_plugin.tokens import AudioTokens, TextTokens

MAX_TOKENS = 64
"""Longest caption where the start says none."""

_CLIPS = 2
_CAPTIONS = 8
_SAMPLE = 1_000
_LONG = 0.95
"""Of captions, as many are no longer than those that are measured: a batch of 32 is padded to about
its longest one."""

_TOKENS_A_WORD = 1.3
"""Before there is a tokenizer; BERT's makes 1.2 of English captions."""


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
    most = min(start.max_tokens or MAX_TOKENS, text_positions(model.text.encoder) or MAX_TOKENS)
    tokens = min(most, long_caption(data, train, started.tokenizer))
    audio, text = _inputs(started, seconds, tokens)
    matching = _matching(model, audio, text) if start.matches else (0, 0.0)
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
        measured_tokens=tokens,
        match_bytes=matching[0],
        match_seconds=matching[1],
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


def _matching(model: Any, audio: dict[str, Any], text: dict[str, Any]) -> tuple[int, float]:
    """Bytes and seconds of the matching head's three passes for one pair of a batch; a clip's own
    keys and values are made once where the head shares them."""
    if model.head is None:
        return 0, 0.0
    with torch.no_grad(), torch.random.fork_rng([]):
        clips, captions = model.audio(**audio)[1], model.text(**text)[1]
    rows = torch.arange(_CLIPS, device=captions.mask.device).repeat(MATCHING_PASSES)
    states = None if captions.states is None else captions.states[: len(rows)]
    captions = TextTokens(states, captions.mask[: len(rows)], captions.input_ids[: len(rows)])
    shares = getattr(model, "shares_audio", False)
    if not shares:
        clips = AudioTokens(clips.states[rows], clips.mask[rows])
    known = [*model.parameters(), clips.states]
    run = (
        (lambda: model.match(captions, clips, rows))
        if shares
        else (lambda: model.match(captions, clips))
    )
    size, seconds = measured(run, known)
    return size // _CLIPS, seconds / _CLIPS


def long_caption(data: AudioTextDataset, split: str, tokenizer: Any = None) -> int:
    """Tokens that 95 in 100 captions of a split do not exceed.

    Args:
        data: the open data set.
        split: of it.
        tokenizer: of transformers; ``None`` counts words.
    """
    clips = data.clips(split)
    some = clips[:: max(1, len(clips) // _SAMPLE)]
    texts = [clip.captions[0] for clip in some]
    if tokenizer is None:
        lengths = [2 + _TOKENS_A_WORD * len(text.split()) for text in texts]
    else:
        lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    return max(3, math.ceil(float(np.quantile(lengths, _LONG))))


def _inputs(started: Started, seconds: float, tokens: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the two towers: noise, and sentences of one word again and again."""
    model: Any = started.model
    device = next(model.parameters()).device
    rng = np.random.default_rng(0)
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
