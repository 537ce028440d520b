"""Tiny real models and batches that several tests share."""

from __future__ import annotations

import os

# No test may wait for a network: names that are not here must fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
# The models are tiny, and several processes test at once: threads that wait for each other would
# cost more than they give, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from torch import Tensor

import atr_moco_plugin.hosts.fairseq2  # noqa: F401 makes fairseq2 importable without libsndfile
from atr_moco_plugin.model import RetrievalModel, build_model, model_config

# A busy machine is no fault of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A run of fairseq2 sets the threads of its process, and the last bits depend on them."""
    torch.set_num_threads(1)


TINY_AUDIO = {
    "embed_dim": 16,
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "num_buckets": 32,
    "max_distance": 64,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "dropout_input": 0.0,
}
TINY_TEXT = {
    "vocab_size": 50,
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


TINY_TOY_RECIPE = [
    "model.config_overrides.embed_dim=12",
    "model.config_overrides.audio.config.embed_dim=16",
    "model.config_overrides.audio.config.encoder_layers=1",
    "model.config_overrides.audio.config.encoder_embed_dim=24",
    "model.config_overrides.audio.config.encoder_ffn_embed_dim=32",
    "model.config_overrides.audio.config.encoder_attention_heads=2",
    "model.config_overrides.audio.config.conv_pos=8",
    "model.config_overrides.audio.config.conv_pos_groups=2",
    "model.config_overrides.text.config.hidden_size=20",
    "model.config_overrides.text.config.num_hidden_layers=1",
    "model.config_overrides.text.config.num_attention_heads=2",
    "model.config_overrides.text.config.intermediate_size=24",
    "dataset.config_overrides.num_train=30",
    "dataset.config_overrides.num_valid=6",
    "dataset.config_overrides.num_test=6",
    "criterion.config.atm_start=0",
    "criterion.config.atm_every=1",
    "dataset.batch_size=8",
    "dataset.max_seconds=1.0",
    "evaluation.rerank_k=3",
    "report=false",
    "regime.num_steps=4",
    "regime.validate_every_n_steps=2",
    "regime.checkpoint_every_n_steps=2",
    "regime.publish_metrics_every_n_steps=1",
    "regime.keep_best_n_checkpoints=null",
]
"""A run of the toy recipe in a second or two: its arguments after ``--config``."""


def make_tiny_model(seed: int = 0, fusion: str = "blip", **options: object) -> RetrievalModel:
    """BEATs and BERT in miniature, random weights."""
    torch.manual_seed(seed)
    return build_model(
        model_config(
            {
                "embed_dim": 12,
                "audio": {"name": "beats", "config": TINY_AUDIO},
                "text": {"name": "bert", "config": TINY_TEXT},
                "head": {"name": "atm", "config": {"fusion": fusion}},
                **options,
            }
        )
    )


def make_tiny_batch(b: int = 4, seed: int = 0, samples: int = 8_000) -> dict[str, object]:
    """B random clips and captions of different lengths, in the arguments of a criterion."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3_000, samples + 1, (b,), generator=generator)
    waveforms = torch.randn(b, samples, generator=generator) * 0.1
    waveforms *= torch.arange(samples) < lengths[:, None]
    tokens = torch.randint(3, 9, (b,), generator=generator)
    mask = torch.arange(8) < tokens[:, None]
    input_ids = torch.randint(5, 50, (b, 8), generator=generator) * mask
    ids: Tensor = torch.randint(0, 2**62, (2, b), generator=generator)
    return {
        "audio": {"waveforms": waveforms, "lengths": lengths},
        "text": {"input_ids": input_ids, "mask": mask},
        "clip_ids": ids[0],
        "caption_ids": ids[1],
    }


@pytest.fixture
def tiny_model() -> Callable[..., RetrievalModel]:
    return make_tiny_model


@pytest.fixture
def tiny_batch() -> Callable[..., dict[str, object]]:
    return make_tiny_batch


@pytest.fixture(scope="session")
def tiny_options() -> list[str]:
    return list(TINY_TOY_RECIPE)
