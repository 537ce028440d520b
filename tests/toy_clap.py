"""A model, batches and a loop like those of LAION-CLAP, as far as its host asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.hosts.laion_clap.epoch import follow_epoch
from atr_moco_plugin.hosts.laion_clap.model import add_criterion


class Branch(nn.Module):
    """Stands for an audio or a text branch: one layer, one token."""

    config = SimpleNamespace(hidden_size=5)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, batch: Any = None, **inputs: Any) -> dict[str, Tensor]:
        source = inputs["input_ids"].float() if batch is None else batch["waveform"]
        states = self.layer(source)
        audio = {"embedding": states, "fine_grained_embedding": states[:, None]}
        return {**audio, "last_hidden_state": states[:, None], "pooler_output": states}


class Clap(nn.Module):
    """What the host asks of LAION's model."""

    joint_embed_shape = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio_branch, self.text_branch = Branch(), Branch()
        self.audio_projection, self.text_projection = (
            nn.Sequential(nn.Linear(5, 4)) for _ in range(2)
        )
        self.logit_scale_a = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def get_logit_scale(self) -> tuple[Tensor, Tensor]:
        return self.logit_scale_a.exp(), self.logit_scale_a.exp()


def clap_batch(seed: int) -> dict[str, Any]:
    """Four pairs as their loader gives them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "waveform": torch.randn(4, 6, generator=generator),
        "text": {
            "input_ids": torch.randint(1, 9, (4, 6), generator=generator),
            "attention_mask": torch.ones(4, 6, dtype=torch.int64),
        },
        "raw_text": [f"sound {i}" for i in range(4)],
        "__url__": ["/data/toy/train/0.tar"] * 4,
        "__key__": [f"{seed}.{i}" for i in range(4)],
    }


def loader_of(batches: int) -> dict[str, Any]:
    """What their loop is given as its data, in batches of four."""
    loader = SimpleNamespace(num_batches=batches, num_samples=4 * batches)
    return {"train": SimpleNamespace(dataloader=loader)}


def their_args(**more: Any) -> SimpleNamespace:
    """Their arguments, as far as the host asks for them."""
    own = {"seed": 1, "rank": 0, "epochs": 2, "logs": "none", "name": "x", "wandb": False}
    return SimpleNamespace(**{**own, "resume": None, **more})


def follow(
    clap: nn.Module,
    broken: dict[int, float],
    scaler: Any = None,
    batches: Callable[[int], dict[str, Any]] = clap_batch,
    **args: Any,
) -> list[int]:
    """Three steps of a loop like theirs; steps with a broken clip, or a broken gradient where the
    value is infinite. Returns the steps counted after each."""
    counts = []

    def loop(model: Any, data: Any, epoch: int, optimizer: Any, scaler: Any, *_: Any) -> None:
        for step in range(3):
            batch = batches(step)
            if math.isnan(broken.get(step, 0.0)):
                batch["waveform"][1] = math.nan
            loss = model(batch, batch["text"], torch.device("cpu"))[0] * broken.get(step, 1.0)
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            optimizer.zero_grad()
            counts.append(int(model.moco.num_steps))

    optimizer = torch.optim.AdamW([p for p in clap.parameters() if p.requires_grad], lr=1e-3)
    followed = follow_epoch(loop, rank_every=1)
    followed(clap, loader_of(3), 0, optimizer, scaler, None, their_args(**args))
    assert clap.moco.total_steps == 3 * their_args(**args).epochs
    return counts


def criterion_clap(**options: Any) -> Any:
    """The model with a criterion, in training mode."""
    config = MocoAtcConfig(**{"queue_size": 8, "momentum": 0.5, **options})
    return add_criterion(Clap(), MocoAtc, config).train()
