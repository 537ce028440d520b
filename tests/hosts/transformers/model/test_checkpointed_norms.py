"""Gradient checkpointing and what an encoder does below its layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import make_tiny_batch
from hf_models import AUDIO, TEXT
from torch import Tensor

from atr_moco_plugin.hosts.transformers import TrainerModel
from atr_moco_plugin.model import build_model, model_config


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_gradient_checkpointing_leaves_the_norm_of_a_padded_batch_right(
    norm: str, reentrant: bool
) -> None:
    """Computed again in the backward pass, the group norm below the layers took padding along."""
    torch.manual_seed(0)
    still = {
        x: 0.0
        for x in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    }
    sizes = {**AUDIO["wav2vec2"], **still, "feat_extract_norm": norm}
    audio = {"name": "hf_audio", "config": {"architecture": sizes}}
    still = {x: 0.0 for x in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    text = {"name": "hf_text", "config": {"architecture": {**TEXT["bert"], **still}}}
    parts = {"audio": audio, "text": text, "head": {"name": "fusion"}, "embed_dim": 8}
    model = TrainerModel(build_model(model_config(parts)), "atc").train()

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        batch: Any = make_tiny_batch()
        ids = {"clip_id": batch["clip_ids"], "caption_id": batch["caption_ids"]}
        model(**batch["audio"], **batch["text"], **ids)["loss"].backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    encoder = model.criterion.model.audio.encoder
    assert all(layer.gradient_checkpointing for layer in encoder.layers)
    # The convolutions keep the most: all but the one with the group norm are computed again.
    first, *others = encoder.model.feature_extractor.conv_layers
    assert others and all(layer.gradient_checkpointing for layer in others)
    assert first.gradient_checkpointing == (norm == "layer")
    found = gradients()
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4, msg=name)
