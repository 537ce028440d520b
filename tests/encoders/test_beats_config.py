"""Validation of the BEATs configuration, and its translation from the official one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from beats_files import official_cfg

from atr_moco_plugin.encoders.beats import BeatsConfig

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def base_cfg() -> dict[str, Any]:
    return json.loads((FIXTURES / "beats_base_manifest.json").read_text())["cfg"]


def test_defaults_are_the_base_model() -> None:
    assert BeatsConfig() == BeatsConfig.from_official(base_cfg() | {"predictor_dropout": 0.0})


def test_official_round_trip() -> None:
    config = BeatsConfig(encoder_layers=3, dropout=0.3, finetuned_model=True, predictor_class=5)
    assert BeatsConfig.from_official(official_cfg(config)) == config


def test_silent_cfg_means_the_official_defaults() -> None:
    config = BeatsConfig.from_official({"input_patch_size": 16, "learning_rate": 1e-4})
    assert not config.deep_norm
    assert not config.relative_position_embedding
    assert not config.gru_rel_pos
    assert config.max_distance == 1280
    assert config.dropout_input == 0.0


def test_layerdrop_and_gradient_decay_are_dropped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        BeatsConfig.from_official(base_cfg() | {"layer_wise_gradient_decay_ratio": 0.6})
    assert "encoder_layerdrop 0.05 is set to 0.0" in caplog.text
    assert "layer_wise_gradient_decay_ratio 0.6 is set to 1.0" in caplog.text


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({}, "no 'input_patch_size'"),
        ({"input_patch_size": 16, "layer_norm_first": True}, "layer_norm_first must be False"),
        ({"input_patch_size": -1}, "`input_patch_size` is -1, expected 1 or more"),
    ],
)
def test_from_official_refuses(cfg: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeatsConfig.from_official(cfg)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("encoder_layers", 0, "`encoder_layers` is 0, expected 1 or more"),
        ("dropout", 1.0, "expected at least 0 and below 1"),
        ("dropout_input", -0.1, "expected at least 0 and below 1"),
        ("encoder_attention_heads", 7, "expected a divisor of `encoder_embed_dim`, 768"),
        ("conv_pos_groups", 5, "expected a divisor of `encoder_embed_dim`, 768"),
        ("input_patch_size", 129, "expected at most 128"),
        ("activation_fn", "swish", "expected one of gelu, relu"),
        ("num_buckets", 31, "is 31, expected an even number"),
        ("max_distance", 80, "expected above `num_buckets` / 4, 80"),
        (
            "relative_position_embedding",
            False,
            "expected False without `relative_position_embedding`",
        ),
        ("padding_mask", "conv", "expected one of exact, official"),
        ("sha256", "00", "without a `checkpoint` to verify"),
    ],
)
def test_refuses(name: str, value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        BeatsConfig(**{name: value})


def test_official_mask_needs_more_frames_than_tokens() -> None:
    BeatsConfig(input_patch_size=12, padding_mask="official")
    with pytest.raises(ValueError, match="expected exact for `input_patch_size` 10"):
        BeatsConfig(input_patch_size=10, padding_mask="official")
