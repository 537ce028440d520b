"""What a frozen tower makes of clips and captions, as it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atr_moco_plugin.data.loading.batch import pad_waveforms
from atr_moco_plugin.embedding_cache.outputs import Output, Stage, check_finite, to_float16
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.tensors.transfer import to_device
from atr_moco_plugin.tokens import AudioTokens, TextTokens

_PROBE_SECONDS = 1.0


@torch.no_grad()
def encode_clips(
    tower: Any, waveforms: Sequence[NDArray[np.float32]], names: Sequence[str], stage: Stage
) -> list[Output]:
    """Outputs of clips.

    Args:
        tower: an :class:`~atr_moco_plugin.model.towers.AudioTower` whose encoder is frozen.
        waveforms: ``[n_i]`` float32 each, at the encoder's rate.
        names: of the clips, for messages.
        stage: what is kept.

    Raises:
        InputError: if an output is not finite or beyond float16.
    """
    outputs: list[Output] = []
    for part in _batches(waveforms, getattr(tower.encoder, "any_padding", True)):
        padded, lengths = pad_waveforms(waveforms[part])
        tokens = _audio_tokens(tower.encoder, padded, lengths)
        outputs += _outputs(tower.pooling, tokens, names[part], stage)
    return outputs


@torch.no_grad()
def encode_texts(
    tower: Any, input_ids: Tensor, mask: Tensor, names: Sequence[str], stage: Stage
) -> list[Output]:
    """Outputs of captions.

    Args:
        tower: a :class:`~atr_moco_plugin.model.text_tower.TextTower` whose encoder is frozen.
        input_ids: ``[B, L]`` int64.
        mask: ``[B, L]`` bool.
        names: of the captions, for messages.
        stage: what is kept.

    Raises:
        InputError: if an output is not finite or beyond float16.
    """
    device = _device(tower.encoder)
    with _exact(device):
        tokens = tower.encoder(input_ids.to(device), mask.to(device))
    return _outputs(tower.pooling, tokens, names, stage)


@torch.no_grad()
def probe_audio(tower: Any) -> list[float]:
    """What the encoder makes of a second of noise, ``[width]``: the mean of its tokens."""
    encoder = tower.encoder
    seconds = probe_seconds(encoder)
    generator = torch.Generator().manual_seed(stable_digest("probe"))
    noise = 0.1 * torch.randn(1, round(seconds * encoder.sample_rate), generator=generator)
    return _mean(_audio_tokens(encoder, noise, torch.tensor([noise.size(1)])))


def probe_seconds(encoder: nn.Module) -> float:
    """Seconds of a test input: one, or as many as an encoder needs."""
    return max(_PROBE_SECONDS, getattr(encoder, "min_seconds", 0.0) or 0.0)


@torch.no_grad()
def probe_text(tower: Any, input_ids: Tensor, mask: Tensor) -> list[float]:
    """What the encoder makes of one caption (``[1, L]``), ``[width]``: the mean of its tokens."""
    device = _device(tower.encoder)
    with _exact(device):
        return _mean(tower.encoder(input_ids.to(device), mask.to(device)))


def count_tokens(tower: Any, samples: int) -> int:
    """Valid tokens of a clip of that many samples; its encoder runs once on silence."""
    silence = torch.zeros(1, samples)
    with torch.no_grad():
        tokens = _audio_tokens(tower.encoder, silence, torch.tensor([samples]))
    return int(tokens.mask.sum())


def _audio_tokens(encoder: Any, waveforms: Tensor, lengths: Tensor) -> AudioTokens:
    device = _device(encoder)
    waveforms = waveforms.to(device)
    with _exact(device):
        tokens: AudioTokens
        if hasattr(encoder, "features"):
            tokens = encoder(features=encoder.features(waveforms, lengths))
        else:
            tokens = encoder(waveforms, to_device(lengths, device))
    return tokens


def _outputs(
    pooling: nn.Module, tokens: AudioTokens | TextTokens, names: Sequence[str], stage: Stage
) -> list[Output]:
    assert tokens.states is not None
    states, mask = tokens.states.float(), tokens.mask
    counts = mask.sum(dim=1).tolist()
    valid = torch.arange(mask.size(1), device=mask.device) < mask.sum(dim=1)[:, None]
    if not torch.equal(valid, mask):
        raise ValueError("the valid tokens of a row must come first")
    pooled = pooling(states, mask).cpu().numpy() if stage.pooled else [None] * len(names)
    whole = states.cpu().numpy()
    outputs = []
    for name, row, vector, count in zip(names, whole, pooled, counts, strict=True):
        check_finite(row[:count], name)
        if vector is not None:
            check_finite(vector, name)
        kept = to_float16(row[:count], name) if stage.tokens else None
        outputs.append(Output(vector, kept))
    return outputs


def _mean(tokens: AudioTokens | TextTokens) -> list[float]:
    assert tokens.states is not None
    values: list[float] = tokens.states.float()[tokens.mask].mean(dim=0).tolist()
    return values


def _batches(waveforms: Sequence[NDArray[np.float32]], any_padding: bool) -> Iterator[slice]:
    """Runs of clips that an encoder takes as one batch: of one length where padding would change
    their tokens."""
    first = 0
    for at in range(1, len(waveforms) + 1):
        ends = at == len(waveforms)
        if ends or (not any_padding and len(waveforms[at]) != len(waveforms[first])):
            yield slice(first, at)
            first = at


def _device(encoder: nn.Module) -> torch.device:
    return next(encoder.parameters()).device


def _exact(device: torch.device) -> torch.autocast:
    """Without the mixed precision that a host may have switched on: what is kept is float32."""
    return torch.autocast(device.type, enabled=False)
