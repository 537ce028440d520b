"""Official BEATs checkpoints, written as the official code would."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from atr_moco_plugin.encoders.beats.checkpoint import official_name

LAYER_BIAS = "encoder.layers.{}.self_attn.relative_attention_bias.weight"


def official_cfg(config: BeatsConfig) -> dict[str, Any]:
    """The ``cfg`` from which the official code builds the same model."""
    cfg = {**asdict(config), "layer_norm_first": False}
    cfg |= {"encoder_layerdrop": 0.0, "layer_wise_gradient_decay_ratio": 1.0}
    for name in ("padding_mask", "checkpoint", "sha256"):
        del cfg[name]
    return cfg


def official_state(encoder: BeatsEncoder) -> dict[str, Tensor]:
    """Parameters under their official names, the relative attention bias under every layer."""
    state = {official_name(name): value for name, value in encoder.state_dict().items()}
    bias = state.pop("encoder.relative_attention_bias.weight", None)
    if bias is not None:
        state |= {LAYER_BIAS.format(i): bias for i in range(encoder.config.encoder_layers)}
    return state


def save_official(encoder: BeatsEncoder, path: Path) -> None:
    """Write a checkpoint; the suffix ``.safetensors`` selects that format."""
    cfg, state = official_cfg(encoder.config), official_state(encoder)
    if path.suffix == ".safetensors":
        # It refuses tensors that share memory.
        tied = [LAYER_BIAS.format(i) for i in range(1, encoder.config.encoder_layers)]
        tensors = {f"model.{k}": v.contiguous() for k, v in state.items() if k not in tied}
        save_file(tensors, path, metadata={"cfg": json.dumps(cfg)})
    else:
        torch.save({"cfg": cfg, "model": state}, path)
