"""Columns and keys of every kind against a slow form in float64, with its own queue."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from table_model import TableModel, table_batch
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim import SGD

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.errors import InputError

TOTAL = 7
KINDS = [
    ("momentum", "momentum"),
    ("online", "momentum"),
    ("online", "online"),
    ("both", "momentum"),
]
Ids = tuple[list[int], list[int]]


@dataclass
class SlowMoco:
    """The criterion, item by item."""

    config: MocoAtcConfig
    weights: dict[str, Tensor]
    """Averages of both tables."""
    queue: list[tuple[Tensor, Tensor, Ids]] = field(default_factory=list)
    steps: int = 0
    pairs: int = 0

    def loss(self, online: dict[str, Tensor], temperature: Tensor, batch: dict[str, Any]) -> Tensor:
        rows = batch["audio"]["items"]
        ids = [ids_of(batch["clip_ids"][i], batch["caption_ids"][i]) for i in range(len(rows))]
        a, u = (normalize(online[name][rows], dim=1) for name in ("audio", "text"))
        averages = online if self.config.keys == "online" else self.weights
        a_m, u_m = (normalize(averages[x][rows].detach(), dim=1) for x in ("audio", "text"))
        queue = self.queue[-self.config.queue_size :] if self.config.queue_size else []
        total = torch.zeros((), dtype=torch.float64)
        for query, query_m, batch_columns, batch_m, side in (
            (a, a_m, u, u_m, 1),
            (u, u_m, a, a_m, 0),
        ):
            for i in range(len(rows)):
                own = batch_columns if self.config.columns == "online" else batch_m
                columns = [(own[j], batch_m[j], ids[j], False) for j in range(len(rows))]
                columns += [(row[side], row[side], row[2], True) for row in queue]
                if self.config.queue_positives == "ignore":
                    columns = [c for c in columns if not (c[3] and related(ids[i], c[2]))]
                logits = torch.stack([query[i] @ c[0] for c in columns]) / temperature
                soft = torch.stack([query_m[i] @ c[1] for c in columns]) / temperature.detach()
                y = torch.tensor([float(related(ids[i], c[2])) for c in columns]).double()
                target = self.config.alpha * soft.softmax(0) + (1 - self.config.alpha) * y / y.sum()
                loss = -(target * logits.log_softmax(0)).sum()
                if self.config.columns == "both":
                    logits = batch_columns @ query[i] / temperature
                    y = torch.tensor([float(related(ids[i], ids[j])) for j in range(len(rows))])
                    in_batch = -(y.double() / y.sum() * logits.log_softmax(0)).sum()
                    loss = (loss + in_batch) / 2
                total = total + loss / (2 * len(rows))
        self.queue += [(a_m[i], u_m[i], ids[i]) for i in range(len(rows))]
        self.pairs += len(rows)
        return total

    def step(self, online: dict[str, Tensor]) -> None:
        m = self.config.momentum
        if self.config.momentum_schedule == "cosine":
            m = 1 - (1 - m) * (math.cos(math.pi * self.steps / TOTAL) + 1) / 2
        if self.config.momentum_per == "pair":
            m **= self.pairs
        for name, average in self.weights.items():
            average.mul_(m).add_(online[name].detach(), alpha=1 - m)
        self.steps, self.pairs = self.steps + 1, 0


def ids_of(clips: Tensor, captions: Tensor) -> Ids:
    clips, captions = clips.reshape(-1), captions.reshape(-1)
    return clips[clips >= 0].tolist(), captions[clips >= 0].tolist()


def related(one: Ids, other: Ids) -> bool:
    return any(set(x) & set(y) for x, y in zip(one, other, strict=True))


def tables(criterion: MocoAtc) -> dict[str, Tensor]:
    return {name: getattr(criterion.model, name).weight for name in ("audio", "text")}


def in_float64(criterion: MocoAtc) -> dict[str, Tensor]:
    return {k: w.detach().double().requires_grad_() for k, w in tables(criterion).items()}


def check(config: MocoAtcConfig, *, mixed: bool = False, accumulate: int = 1) -> None:
    criterion = MocoAtc(TableModel(), config).train()
    criterion.total_steps = TOTAL
    optimizer = SGD([p for p in criterion.parameters() if p.requires_grad], lr=0.3)
    optimizer.add_param_group({"params": []})
    criterion.attach(optimizer)
    slow = SlowMoco(config, {k: w.detach().clone() for k, w in in_float64(criterion).items()})
    for step in range(5):
        online = in_float64(criterion)
        temperature = criterion.temperature.detach().double().requires_grad_()
        criterion.zero_grad()
        for part in range(accumulate):
            batch = table_batch(5 - part, seed=10 * step + part, mixed=mixed)
            found, expected = criterion(**batch), slow.loss(online, temperature, batch)
            torch.testing.assert_close(found["loss"].double(), expected, atol=1e-5, rtol=1e-5)
            found["loss"].backward()
            expected.backward()
        gradients = {name: w.grad.double() for name, w in tables(criterion).items()}
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, online[name].grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            criterion.temperature.grad.double(), temperature.grad, atol=1e-3, rtol=1e-4
        )
        criterion.temperature.grad.zero_()
        optimizer.step()
        slow.step(in_float64(criterion))


@pytest.mark.parametrize(("columns", "keys"), KINDS)
@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("queue_size", [0, 12])
@pytest.mark.parametrize("queue_positives", ["target", "ignore"])
@pytest.mark.parametrize("mixed", [False, True])
def test_loss_and_gradients_are_those_of_the_slow_form(
    columns, keys, alpha, queue_size, queue_positives, mixed
) -> None:
    if keys == "online" and alpha:
        return  # refused
    config = MocoAtcConfig(
        columns=columns, keys=keys, alpha=alpha, queue_size=queue_size,
        queue_positives=queue_positives,
        momentum=MocoAtcConfig.momentum if keys == "online" else 0.7,
    )  # fmt: skip
    check(config, mixed=mixed)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("per", ["step", "pair"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_averages_follow_their_schedule(schedule, per, accumulate) -> None:
    config = MocoAtcConfig(
        queue_size=12, momentum=0.95 if per == "pair" else 0.7, momentum_schedule=schedule,
        momentum_per=per,
    )  # fmt: skip
    check(config, accumulate=accumulate)


def test_no_momentum_copies_with_online_keys() -> None:
    options = {"keys": "online", "columns": "online", "alpha": 0.0}
    criterion = MocoAtc(TableModel(), MocoAtcConfig(queue_size=8, **options))
    trained = {name for name, _ in criterion.named_parameters()}
    assert trained == {"temperature", "model.audio.weight", "model.text.weight"}
    assert not any("_m." in name for name in criterion.state_dict())
    assert criterion.momentum_copies == {}
    measures = criterion(**table_batch(4, seed=0))
    assert measures["momentum"] == 0 and measures["queue_fill"] == 0.5
    again = MocoAtc(TableModel(seed=1), criterion.config)
    again.load_state_dict(copy.deepcopy(criterion.state_dict()))
    torch.testing.assert_close(again(**table_batch(4, seed=1)), criterion(**table_batch(4, seed=1)))


def test_momentum_without_copies_is_warned_of() -> None:
    config = MocoAtcConfig(queue_size=8, keys="online", columns="online", alpha=0.0, momentum=0.9)
    with pytest.warns(UserWarning, match="`keys` is online.*`momentum`, which is 0.9, has no"):
        MocoAtc(TableModel(), config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keys": "online"}, "for the batch's columns: set `columns` to online too"),
        ({"keys": "online", "columns": "online"}, "soft targets, but `alpha` is 0.4: set it to 0"),
        (
            {"keys": "online", "columns": "online", "alpha": 0.0, "momentum_per": "pair"},
            "no momentum embeddings, but `momentum_per` is pair: leave it out",
        ),
        (
            {"keys": "online", "columns": "online", "alpha": 0.0, "momentum_schedule": "cosine"},
            "but `momentum_schedule` is cosine: leave it out",
        ),
        ({"columns": "all"}, "`columns` is 'all', expected one of momentum, online, both"),
        ({"columns": "both", "keys": "online"}, "batch's columns: set `columns` to online too"),
        ({"queue_warmup_steps": "soon"}, "`queue_warmup_steps` is 'soon', expected int or auto"),
    ],
)
def test_options_that_do_not_go_together_are_refused(values, message) -> None:
    with pytest.raises(InputError, match=message):
        MocoAtcAtmConfig(**values)
