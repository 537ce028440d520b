"""Small CLAP models, batches and Trainers for the tests of the transformers host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    Trainer,
    TrainingArguments,
)

from atr_moco_plugin import load
from atr_moco_plugin.data import ToyConfig, open_toy
from atr_moco_plugin.heads.fusion import FusionHead, FusionHeadConfig
from atr_moco_plugin.hosts.transformers import (
    TRAINING_ARGUMENTS,
    AudioModelTower,
    ClapCollator,
    ClapTrainerModel,
    MocoCallback,
    PairDataset,
    TextModelTower,
    TowerPair,
    TrainerModel,
    compute_metrics,
)
from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.text.tokenizer import train_wordpiece

RATE = 8_000
HEAD = FusionHeadConfig(layers=1, heads=2)


def make_clap(vocab_size: int = 60, **audio: object) -> ClapModel:
    """A ClapModel of 20,000 weights, with dropout and batch norm as in the real one."""
    torch.manual_seed(0)
    return ClapModel(
        ClapConfig(
            text_config={
                "vocab_size": vocab_size,
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "max_position_embeddings": 40,
                "pad_token_id": 0,
            },
            audio_config={
                "num_mel_bins": 8,
                "spec_size": 16,
                "window_size": 2,
                "patch_embeds_hidden_size": 8,
                "hidden_size": 16,
                "depths": [1, 1],
                "num_attention_heads": [2, 2],
                **audio,
            },
            projection_dim=12,
        )
    )


def make_extractor(max_length_s: int = 4, **options: Any) -> ClapFeatureExtractor:
    """Eight mels at 8 kHz; the clips of the toy data set last 4 s."""
    return ClapFeatureExtractor(
        **{
            "feature_size": 8,
            "sampling_rate": RATE,
            "hop_length": 1024,
            "max_length_s": max_length_s,
            "fft_window_size": 256,
            "frequency_max": 4000,
            "truncation": "rand_trunc",
            **options,
        }
    )


def make_batch(b: int = 4, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (b, 6), generator=generator)
    mask = torch.ones(b, 6, dtype=torch.int64)
    ids[1, 4:], mask[1, 4:] = 0, 0
    return {
        "input_features": 20 * torch.randn(b, 1, 30, 8, generator=generator) - 40,
        "is_longer": torch.zeros(b, 1, dtype=torch.bool),
        "input_ids": ids,
        "attention_mask": mask,
        "clip_id": torch.arange(b) + 100 * seed,
        "caption_id": torch.arange(b) + 100 * seed,
    }


def make_trainer(
    out: Path,
    *,
    criterion: str = "moco_atc_atm",
    queue_size: int = 30,
    max_length_s: int = 4,
    model_options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Trainer:
    """A Trainer over the toy data set, from equal weights each time. Its clips last 4 s; with a
    lower ``max_length_s`` they are cropped. ``model_options`` are those of its
    ``ClapTrainerModel``."""
    data = open_toy(ToyConfig(num_train=6, num_valid=4, num_test=1, cache=True))
    captions = [text for clip in data.clips("train") for text in clip.captions]
    tokenizer = train_wordpiece(captions, vocab_size=120)
    known = {field.name for field in fields(load("criteria", criterion).config_class)}
    queue = {"queue_size": queue_size, "momentum": 0.9} if "queue_size" in known else {}
    options: dict[str, Any] = {**queue, **(model_options or {})}
    if criterion == "moco_atc_atm":
        options.setdefault("atm_start", 0)
    model = ClapTrainerModel(make_clap(len(tokenizer)), criterion, head=HEAD, **options)
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "data_seed": 3,
    }
    trainer = Trainer(
        model,
        TrainingArguments(str(out), **TRAINING_ARGUMENTS, **{**defaults, **arguments}),
        ClapCollator(tokenizer, make_extractor(max_length_s), max_tokens=39),
        PairDataset(data, "train", RATE),
        PairDataset(data, "valid", RATE),
        compute_metrics=compute_metrics,
        optimizers=(AdamW(parameter_groups(model.criterion, 0.05), lr=1e-2), None),
    )
    trainer.add_callback(MocoCallback(trainer, rank_every=2))
    return trainer


class TiedEncoder(nn.Module):
    """An audio encoder whose two layers are one, as tied weights of an encoder are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.config = type("Config", (), {"hidden_size": 8})

    def forward(self, features: Tensor) -> Any:
        states = self.second(self.first(features).relu())
        return type("Output", (), {"last_hidden_state": states})


def pair_of(audio: nn.Module, **options: Any) -> TrainerModel:
    """A criterion around an audio encoder and a small BERT."""
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16,
        )
    )  # fmt: skip
    towers = AudioModelTower(audio, 12), TextModelTower(bert, 12)
    head = FusionHead(towers[1], towers[0].width, HEAD)
    matching: dict[str, Any] = {} if "criterion" in options else {"atm_start": 0}
    pair = TowerPair(*towers, head, 12)
    return TrainerModel(pair, queue_size=8, momentum=0.9, **matching, **options)


class Broken(Dataset[dict[str, Any]]):
    """A data set of five pairs a clip, with clips that cannot be used."""

    def __init__(self, data: PairDataset, clips: set[int]) -> None:
        self._data, self._clips = data, clips

    def __len__(self) -> int:
        return len(self._data)

    def name_clips(self, ids: list[int]) -> Mapping[int, str]:
        return self._data.name_clips(ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._data[index]
        broken = index // 5 in self._clips
        return {**example, "audio": example["audio"] * math.nan} if broken else example
