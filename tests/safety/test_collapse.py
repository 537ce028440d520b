"""A collapse is said once, and a healthy run hears nothing."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.safety import CollapseWatch
from atr_moco_plugin.safety.collapse import (
    AFTER,
    ENOUGH_ROWS,
    FLAT_LOGITS,
    LOW_RANK,
    logit_spread,
    lowest_rank,
)

DIM = 16


def unit_rows(n: int, seed: int, spread: float = 1.0) -> Tensor:
    """Rows around one direction; a large spread is the whole sphere."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.ones(DIM) / math.sqrt(DIM)
    return normalize(direction + spread * torch.randn(n, DIM, generator=generator), dim=1)


def queues(audio: Tensor, text: Tensor) -> dict[str, EmbeddingQueue]:
    made = {}
    for name, rows in (("audio", audio), ("text", text)):
        made[name] = EmbeddingQueue(400, DIM)
        ids = torch.arange(len(rows))
        made[name].enqueue(rows, ids, ids)
    return made


def said(audio: Tensor, text: Tensor, **measures: float) -> list[str]:
    warnings: list[str] = []
    watch = CollapseWatch(after=100, warn=warnings.append)
    for step in (50, 99, 100, 150, 200):
        watch.look(step, queues(audio, text), {"temperature": 0.07, **measures})
        if step < 100:
            assert not warnings
    return warnings


@pytest.mark.parametrize("spread", [1.0, 0.1])
def test_a_healthy_run_hears_nothing(spread: float) -> None:
    # The second is a narrow cone, as in docs/rank_study.md and of encoders without training.
    audio, text = unit_rows(300, 0, spread), unit_rows(300, 1, spread)
    assert said(audio, text, loss_atm=0.5) == []


def test_a_point_is_said_once_for_each_modality() -> None:
    point = unit_rows(1, 0).expand(300, DIM)
    messages = said(point, unit_rows(300, 1))
    assert len(messages) == 1 and "The audio embeddings have collapsed" in messages[0]
    messages = said(point, point)
    assert sorted(m.split(" have")[0] for m in messages if "collapsed" in m) == [
        "The audio embeddings", "The text embeddings",
    ]  # fmt: skip
    (flat,) = [m for m in messages if "collapsed" not in m]
    assert "All similarities are nearly equal after 100 steps" in flat


def test_a_line_is_said() -> None:
    line = torch.zeros(300, DIM)
    angle = torch.linspace(0, 1, 300)
    line[:, 0], line[:, 1] = angle.cos(), angle.sin()
    (message,) = said(line, unit_rows(300, 1))
    assert "RankMe of the newest 256 rows" in message and "Try" not in message.split(". ")[0]


def test_similarities_that_hardly_differ_are_said() -> None:
    # Two modalities in spaces of their own: full rank in each, and nothing between them.
    audio, text = unit_rows(300, 0), unit_rows(300, 1)
    audio[:, : DIM // 2] = 0
    text[:, DIM // 2 :] = 0
    (message,) = said(normalize(audio, dim=1), normalize(text, dim=1))
    assert "All similarities are nearly equal" in message and "Try" in message


@pytest.mark.parametrize(("loss", "number"), [(0.6365, 1), (0.632, 1), (0.6, 0)])
def test_a_matching_loss_at_its_prior_is_said(loss: float, number: int) -> None:
    messages = said(unit_rows(300, 0), unit_rows(300, 1), loss_atm=loss)
    assert len(messages) == number and all("1:2 labels" in m for m in messages)


@pytest.mark.parametrize(
    ("step", "loss", "since", "number"),
    [
        (100, 0.68, 0, 0),
        (100, 0.69, 0, 1),
        (100, 0.69, 60, 0),  # too early to say
        (109, 0.69, 60, 0),
        (110, 0.69, 60, 1),
        (110, 0.69, -1, 1),
    ],
)
def test_one_negative_an_item_and_a_matching_loss_that_began_late(
    step: int, loss: float, since: int, number: int
) -> None:
    class Criterion:
        num_negatives = 1
        matching_since = since

    warnings: list[str] = []
    watch = CollapseWatch(after=100, warn=warnings.append, criterion=Criterion())
    watch.look(step, queues(unit_rows(300, 0), unit_rows(300, 1)), {"loss_atm": loss})
    assert len(warnings) == number and all("0.6931, the entropy of its 1:1" in m for m in warnings)


def test_too_few_rows_and_missing_measures_say_nothing() -> None:
    few = unit_rows(1, 0).expand(ENOUGH_ROWS - 1, DIM)
    assert said(few, few) == []
    warnings: list[str] = []
    watch = CollapseWatch(after=1, warn=warnings.append)
    watch.look(5, {}, {})
    watch.look(5, queues(unit_rows(100, 0), unit_rows(100, 1)), {})
    # A report without a finite batch has no figures.
    nothing = {"temperature": math.nan, "loss_atm": math.nan}
    watch.look(5, queues(unit_rows(100, 0), unit_rows(100, 1)), nothing)
    assert warnings == []


def test_the_queues_of_a_long_run_are_judged_before_its_middle() -> None:
    point, warnings = unit_rows(1, 0).expand(300, DIM), []
    watch = CollapseWatch(after=50_000, warn=warnings.append)
    watch.look(AFTER - 1, queues(point, unit_rows(300, 1)), {"loss_atm": 0.6365})
    assert warnings == []
    watch.look(AFTER, queues(point, unit_rows(300, 1)), {"loss_atm": 0.6365})
    assert len(warnings) == 1 and re.search(r"RankMe .* is 0\.00 of 16", warnings[0])


def test_the_measures() -> None:
    assert lowest_rank(unit_rows(1, 0).expand(50, DIM)) < LOW_RANK
    assert lowest_rank(unit_rows(200, 0)) > DIM / 2
    audio, text = torch.eye(2), torch.eye(2)
    assert logit_spread(audio, text, 0.5) == pytest.approx(2 * math.sqrt(1 / 3))
    assert logit_spread(audio, torch.ones(2, 2), 0.5) == 0 < FLAT_LOGITS
