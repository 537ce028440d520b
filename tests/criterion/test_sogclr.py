"""Running sums against a full pass over a small data set, and what a run does with them."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel, linear_batch
from torch import Tensor, nn
from torch.testing import assert_close

from atr_moco_plugin.criterion import SogClr, SogClrConfig
from atr_moco_plugin.criterion.exchange import equal_buffers
from atr_moco_plugin.errors import InputError

N = 24


class Fixed(nn.Module):
    """Embeddings of its own for N items, which are asked for by number."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.rows = nn.Parameter(F.normalize(torch.randn(N, 4, generator=generator), dim=1))

    def forward(self, rows_of: Tensor) -> tuple[Tensor, Any]:
        return self.rows[rows_of], None


class FixedModel(nn.Module):
    embed_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.text = Fixed(0), Fixed(1)


def make(model: nn.Module | None = None, steps: int | None = 100, **options: Any) -> SogClr:
    criterion = SogClr(model or FixedModel(), SogClrConfig(**options)).train()
    criterion.total_steps = steps
    return criterion


def items(rows: Tensor, captions: Tensor | None = None) -> dict[str, Any]:
    captions = rows if captions is None else captions
    inputs = {"rows_of": rows}
    return {"audio": inputs, "text": inputs, "clip_ids": rows, "caption_ids": captions}


def full_pass(model: Any, tau: float) -> Tensor:
    """``[N, 2]`` log g over all other items, in float64."""
    a, u = model.audio.rows.detach().double(), model.text.rows.detach().double()
    found = []
    for x, y in ((a, u), (u, a)):
        logits = x @ y.T / tau
        found.append(logits.fill_diagonal_(-torch.inf).exp().sum(dim=1).div(N - 1).log())
    return torch.stack(found, dim=1)


def sums_of(criterion: SogClr, clips: Tensor, captions: Tensor | None = None) -> Tensor:
    captions = clips if captions is None else captions
    found = [criterion.clip_sums.look_up(clips), criterion.caption_sums.look_up(captions)]
    return torch.stack(found, dim=1).double()


def number(criterion: SogClr) -> tuple[int, int]:
    return len(criterion.clip_sums), len(criterion.caption_sums)


def test_a_batch_that_is_the_data_set_has_its_sums() -> None:
    criterion, rows = make(), torch.arange(N)
    for _ in range(2):  # gamma is 1 before the first step
        criterion(**items(rows))
        expected = full_pass(criterion.model, 0.07)
        assert_close(sums_of(criterion, rows), expected, atol=1e-4, rtol=1e-5)


def test_over_many_batches_the_sums_come_to_the_full_pass() -> None:
    criterion = make(temperature=0.3, gamma_min=0.02, steps=2)
    criterion.on_optimizer_step()  # the middle of the run: gamma is at its end
    assert criterion.gamma == pytest.approx(0.02)
    generator = torch.Generator().manual_seed(0)
    found = []
    for epoch in range(300):
        for rows in torch.randperm(N, generator=generator).split(6):
            criterion(**items(rows))
        if epoch >= 150:
            found.append(sums_of(criterion, torch.arange(N)).exp())
    mean, expected = torch.stack(found).mean(dim=0), full_pass(criterion.model, 0.3).exp()
    # Each is a mean over 5 of the 23 others, whose own mean is the full one.
    assert ((mean - expected).abs() / expected).max() < 0.1
    one = torch.stack(found)[0]
    assert ((one - expected).abs() / expected).mean() < 0.1


def test_a_second_visit_mixes_by_gamma() -> None:
    criterion = make(steps=4, gamma_min=0.2)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([0, 3, 4])
    criterion(**items(first))
    before = sums_of(criterion, first)[0].exp()
    for expected in (0.6, 0.2, 0.2):
        criterion.on_optimizer_step()
        assert criterion.gamma == pytest.approx(expected)
    alone = make()
    alone.load_state_dict(criterion.state_dict())
    alone.clip_sums.clear()
    alone.caption_sums.clear()
    alone(**items(second))
    batch = sums_of(alone, second)
    criterion(**items(second))
    found = sums_of(criterion, second)
    assert_close(found[0].exp(), 0.8 * before + 0.2 * batch[0].exp(), atol=0, rtol=1e-4)
    assert_close(found[1:], batch[1:])
    assert number(criterion) == (5, 5)


def test_a_caption_of_two_clips_has_one_sum() -> None:
    criterion, captions = make(positives="pair"), torch.tensor([0, 1])
    criterion(**items(torch.tensor([0, 1]), captions))
    criterion(**items(torch.tensor([2, 1]), captions))
    assert number(criterion) == (3, 2)


def test_positives_are_no_negatives_and_a_query_without_any_leaves_nothing() -> None:
    criterion, rows = make(), torch.arange(4)
    captions = torch.tensor([0, 0, 2, 3])
    criterion(**items(rows, captions))
    a, u = criterion.model.audio.rows[:4].double(), criterion.model.text.rows[:4].double()
    expected = (a @ u.T / 0.07)[0, 2:].exp().mean().log()
    assert_close(sums_of(criterion, rows, captions)[0, 0], expected, atol=1e-4, rtol=1e-5)

    criterion = make()
    losses = criterion(**items(rows[:3], torch.zeros(3, dtype=torch.int64)))
    losses["loss"].backward()
    assert number(criterion) == (0, 0) and losses["loss"] == 0
    assert criterion(**items(rows))["loss"].isfinite()


def test_a_mixture_has_two_clips_and_is_not_kept() -> None:
    criterion = make()
    ids = torch.tensor([[0, 5], [1, -1], [2, -1]])
    batch = {**items(torch.arange(3)), "clip_ids": ids, "caption_ids": ids}
    criterion(**batch)
    assert number(criterion) == (2, 2)
    plain = sums_of(criterion, torch.arange(3))
    assert plain[0].isnan().all() and plain[1:].isfinite().all()


def test_every_pass_of_an_accumulated_step_counts() -> None:
    criterion = make(steps=2)
    criterion.on_optimizer_step()
    once = copy.deepcopy(criterion)
    for rows in (torch.arange(4), torch.arange(4, 8)):
        (criterion(**items(rows))["loss"] / 2).backward()
    assert number(criterion) == (8, 8)
    once(**items(torch.arange(4)))
    assert_close(sums_of(criterion, torch.arange(4)), sums_of(once, torch.arange(4)))


def test_ddp_need_not_send_the_sums() -> None:
    assert equal_buffers(make()) == [
        f"{kind}_sums.{x}"
        for kind in ("clip", "caption")
        for x in ("ids", "log_sums", "data_fingerprint")
    ]


def test_an_evaluation_pass_leaves_no_trace() -> None:
    criterion = make(steps=None).eval()
    before = copy.deepcopy(criterion.state_dict())
    with torch.no_grad():
        assert criterion(**items(torch.arange(4)))["loss"].isfinite()
    assert criterion.gamma == 1
    assert_close(criterion.state_dict(), before, atol=0, rtol=0)


def test_a_batch_that_is_not_finite_leaves_the_sums() -> None:
    criterion, rows = make(), torch.arange(4)
    criterion(**items(rows))
    before = copy.deepcopy(sums_of(criterion, torch.arange(6)))
    with torch.no_grad():
        criterion.model.text.rows[5] = torch.nan
    criterion.on_optimizer_step()
    criterion(**items(torch.arange(2, 6)))
    assert_close(sums_of(criterion, torch.arange(6)), before, atol=0, rtol=0, equal_nan=True)


def test_a_run_whose_length_nobody_has_said_is_refused() -> None:
    criterion = make(steps=None)
    with pytest.raises(InputError, match=r"gamma of `sogclr` .* `criterion.total_steps = N`"):
        criterion(**items(torch.arange(4)))


def train(criterion: SogClr, optimizer: Any, seeds: range) -> None:
    for seed in seeds:
        criterion(**linear_batch(seed % 3))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


def test_it_goes_on_to_the_last_bit() -> None:
    whole, first, second = (make(LinearModel(), steps=12) for _ in range(3))
    optimizers = [torch.optim.AdamW(x.parameters(), lr=0.01) for x in (whole, first, second)]
    for criterion, optimizer in zip((whole, first, second), optimizers, strict=True):
        criterion.attach(optimizer)
    train(whole, optimizers[0], range(8))
    train(first, optimizers[1], range(4))
    second.load_state_dict(first.state_dict())
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    train(second, optimizers[2], range(4, 8))
    assert number(whole) == (12, 12) and int(whole.num_steps) == 8
    assert_close(second.state_dict(), whole.state_dict(), atol=0, rtol=0)


def test_the_temperature_stays_above_its_end() -> None:
    criterion = make(temperature_min=0.05)
    with torch.no_grad():
        criterion.temperature.fill_(0.01)
    criterion.on_optimizer_step()
    assert criterion.temperature.item() == pytest.approx(0.05)


def test_rho_is_a_share_of_what_the_divergence_can_be() -> None:
    rows, slopes = torch.arange(N), []
    for options in ({}, {"rho": 0.25 * math.log(N - 1)}, {"rho": 0.0}):
        criterion = make(**options)
        criterion(**items(rows))["loss"].backward()
        slopes.append(criterion.temperature.grad.item())
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-5)
    assert slopes[0] - slopes[2] == pytest.approx(0.25 * math.log(N - 1), rel=1e-3)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"gamma_min": 0}, "`gamma_min` is 0, expected above 0 and at most 1"),
        ({"rho": -1}, "`rho` is -1, expected 0 or more, or auto"),
        (
            {"temperature_min": 0.1},
            "`temperature_min` is 0.1, above `temperature`",
        ),
    ],
)
def test_options_out_of_range_are_refused(option: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SogClrConfig(**option)
