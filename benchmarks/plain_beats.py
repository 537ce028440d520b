"""BEATs as the official code computes it, over the weights of our encoder: the slow way.

Filterbanks clip by clip; three projections; scores, gated bias, weights each a tensor of their own.
Where the official code is slower without a reason in its arithmetic (it divides scores by 32,
subtracts their maximum and multiplies again), this is not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsEncoder
from atr_moco_plugin.encoders.beats.attention import GatedSelfAttention
from atr_moco_plugin.encoders.beats.transformer import BeatsLayer


def plain_fbank(waveforms: Tensor) -> Tensor:
    """``[B, frames, 128]`` normalised features of ``waveforms [B, samples]``, clip by clip.

    Raises:
        ImportError: If torchaudio is missing, which the package itself does not need.
    """
    try:
        from torchaudio.compliance import kaldi
    except ImportError as error:
        raise ImportError(
            "The baseline of the filterbank is torchaudio's, which is not installed; "
            "pip install torchaudio."
        ) from error
    features = [
        kaldi.fbank(clip.unsqueeze(0) * 2**15, num_mel_bins=128, sample_frequency=16_000)
        for clip in waveforms
    ]
    return (torch.stack(features) - 15.41663) / (2 * 6.55582)


def plain_states(encoder: BeatsEncoder, waveforms: Tensor) -> Tensor:
    """States ``[B, T, width]`` of clips ``[B, samples]`` without padding.

    Args:
        encoder: whose weights to use; self-supervised, without dropout, of the defaults otherwise.
        waveforms: as of :meth:`BeatsEncoder.forward`.
    """
    with torch.autocast(waveforms.device.type, enabled=False):
        features = plain_fbank(waveforms)
    patches = encoder.patch_embedding(features.unsqueeze(1))
    x = encoder.layer_norm(patches.reshape(*patches.shape[:2], -1).transpose(1, 2))
    x = encoder.post_extract_proj(x)
    transformer = encoder.encoder
    tokens = x.size(1)
    positions = transformer.pos_conv(x.transpose(1, 2))[..., :tokens]
    x = transformer.layer_norm(x + F.gelu(positions).transpose(1, 2))
    relative = transformer.relative_attention_bias
    buckets = _buckets(tokens, relative.weight.size(0), relative.max_distance).to(x.device)
    bias = F.embedding(buckets, relative.weight).permute(2, 0, 1)
    bias = bias.unsqueeze(0).repeat(x.size(0), 1, 1, 1).flatten(0, 1)
    for layer in transformer.layers:
        x = _layer(layer, x, bias)
    return x


def _layer(layer: BeatsLayer, x: Tensor, bias: Tensor) -> Tensor:
    x = layer.self_attn_layer_norm(layer.alpha * x + _attention(layer.self_attn, x, bias))
    y = layer.fc2(F.gelu(layer.fc1(x)))
    return layer.final_layer_norm(layer.alpha * x + y)


def _attention(attention: GatedSelfAttention, x: Tensor, bias: Tensor) -> Tensor:
    """``bias [B * heads, T, T]``, which each layer multiplies by its gate."""
    batch, tokens, width = x.shape
    heads, size = attention.heads, width // attention.heads

    def split(states: Tensor) -> Tensor:
        return states.view(batch, tokens, heads, size).transpose(1, 2).reshape(-1, tokens, size)

    query = attention.q_proj(x)
    key, value = split(attention.k_proj(x)), split(attention.v_proj(x))
    gates = attention.grep_linear(query.view(batch, tokens, heads, size).transpose(1, 2))
    gates = torch.sigmoid(gates.view(batch, heads, tokens, 2, 4).sum(-1))
    reset, update = gates.chunk(2, dim=-1)
    gate = reset * (update * attention.grep_a - 1.0) + 2.0
    scores = torch.bmm(split(query) * (1.0 / math.sqrt(size)), key.transpose(1, 2))
    weights = F.softmax((scores + gate.view(-1, tokens, 1) * bias).float(), dim=-1).type_as(scores)
    states = torch.bmm(weights, value).view(batch, heads, tokens, size)
    return attention.out_proj(states.transpose(1, 2).reshape(batch, tokens, width))


def _buckets(tokens: int, count: int, farthest: int) -> Tensor:
    """Bucket of the distance from each query to each key, ``[tokens, tokens]``."""
    distance = torch.arange(tokens) - torch.arange(tokens).unsqueeze(1)
    side, exact = count // 2, count // 4
    size = distance.abs()
    ratio = torch.log(size.float().clamp_min(1) / exact) / math.log(farthest / exact)
    far = (exact + (ratio * (side - exact)).long()).clamp_max(side - 1)
    return torch.where(size < exact, size, far) + side * (distance > 0)
