"""The sigmoid loss against float64, and the start of its bias."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel, linear_batch
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.criterion import Siglip, SiglipConfig, sigmoid_loss
from atr_moco_plugin.criterion.exchange import GlobalBatch
from atr_moco_plugin.criterion.siglip import balanced_bias
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.optim import parameter_groups


def unit(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 8, generator=generator, dtype=torch.float64), dim=1)


def oracle(audio: Tensor, text: Tensor, positives: Tensor, t: Tensor, b: Tensor) -> Tensor:
    """One pair at a time, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for i, x in enumerate(audio):
        for j, y in enumerate(text):
            sign = 1 if positives[i, j] else -1
            total = total + (1 + (-sign * (t * (x * y).sum() + b)).exp()).log()
    return total.squeeze() / len(audio)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 4), (3, 7)])
def test_loss_and_gradients_equal_a_float64_oracle(n: int, m: int) -> None:
    positives = torch.rand(n, m, generator=torch.Generator().manual_seed(1)) < 0.3
    positives[:, :n] |= torch.eye(n, dtype=torch.bool)
    exact = [unit(n, 0), unit(m, 1), torch.tensor([0.1]).double(), torch.tensor([-1.3]).double()]
    single = [x.float().requires_grad_() for x in exact]
    exact = [x.requires_grad_() for x in exact]
    expected = oracle(*exact[:2], positives, 1 / exact[2], exact[3])
    found = sigmoid_loss(*single[:2], positives, *single[2:])
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    found.backward()
    expected.backward()
    for x, y in zip(single, exact, strict=True):
        assert_close(x.grad.double(), y.grad, atol=1e-4, rtol=1e-5)


def mean_logit(criterion: Siglip, batch: dict[str, Any]) -> float:
    """Of all pairs of a batch, with the bias that the first one has decided."""
    model = criterion.model
    a, u = model.audio(**batch["audio"])[0].double(), model.text(**batch["text"])[0].double()
    return float((a @ u.T / criterion.temperature.double() + criterion.bias.double()).mean())


def test_the_mean_logit_starts_at_the_log_odds_of_the_first_batch() -> None:
    criterion = Siglip(LinearModel(), SiglipConfig()).train()
    batch = linear_batch()
    criterion(**batch)
    assert mean_logit(criterion, batch) == pytest.approx(-math.log(3), abs=1e-5)
    start = criterion.bias.item()
    # One caption of two clips: 6 of 16 pairs. But the start is that of the first batch.
    batch["caption_ids"] = torch.tensor([0, 0, 1, 2])
    assert criterion(**batch)["bias"].item() == start
    fresh = Siglip(LinearModel(), SiglipConfig()).train()
    fresh(**batch)
    assert mean_logit(fresh, batch) == pytest.approx(math.log(6 / 10), abs=1e-5)
    given = Siglip(LinearModel(), SiglipConfig(bias=-10.0)).train()
    assert given(**batch)["bias"].item() == -10
    same = {**batch, "clip_ids": torch.zeros(4, dtype=torch.int64)}
    fresh = Siglip(LinearModel(), SiglipConfig()).train()
    assert fresh(**same)["loss"].isfinite()


def test_where_all_items_look_alike_the_loss_expects_as_many_positives_as_there_are() -> None:
    alike = F.normalize(torch.ones(4, 8), dim=1)
    ids = torch.arange(4)
    temperature = torch.full((1,), 0.1)
    batch = GlobalBatch([4], alike, alike, ids, ids)
    bias = balanced_bias(batch, "clip_or_caption", temperature).requires_grad_()
    sigmoid_loss(alike, alike, torch.eye(4, dtype=torch.bool), temperature, bias).backward()
    assert bias.grad.item() == pytest.approx(0, abs=1e-5)
    broken = batch._replace(a=alike.clone().fill_(float("nan")))
    found = balanced_bias(broken, "clip_or_caption", temperature)
    assert found.item() == pytest.approx(-math.log(3))


def test_an_evaluation_pass_does_not_decide_the_start() -> None:
    criterion = Siglip(LinearModel(), SiglipConfig()).eval()
    before = copy.deepcopy(criterion.state_dict())
    with torch.no_grad():
        assert criterion(**linear_batch())["loss"].isfinite()
    assert_close(criterion.state_dict(), before, atol=0, rtol=0)


def test_the_start_and_the_change_are_saved() -> None:
    criterion = Siglip(LinearModel(), SiglipConfig()).train()
    optimizer = torch.optim.AdamW(parameter_groups(criterion, 0.5, lr=0.01))
    criterion.attach(optimizer)
    for seed in range(3):
        criterion(**linear_batch(seed))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    loaded = Siglip(LinearModel(), SiglipConfig()).train()
    loaded.load_state_dict(criterion.state_dict())
    assert torch.equal(loaded.bias, criterion.bias)
    given = Siglip(LinearModel(), SiglipConfig(bias=-3.0))
    given.load_state_dict(Siglip(LinearModel(), SiglipConfig()).state_dict())  # none had started
    assert given.bias.item() == -3.0
    assert criterion.bias.item() != pytest.approx(-math.log(3), abs=1e-4)
    batch = linear_batch(7)
    batch["caption_ids"] = torch.zeros(4, dtype=torch.int64)
    assert_close(loaded(**batch), criterion(**batch), atol=0, rtol=0)


def test_neither_bias_nor_temperature_decays() -> None:
    criterion = Siglip(LinearModel(), SiglipConfig())
    plain = [g["params"] for g in parameter_groups(criterion, 0.1) if not g["weight_decay"]]
    ids = {id(p) for params in plain for p in params}
    assert {id(criterion.bias_change), id(criterion.temperature)} <= ids
    assert criterion.bias_change.shape == (1,)
    assert criterion.to(torch.bfloat16).bias.dtype == torch.float32


def test_a_bias_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="`bias` is 1000, expected -100 to 100, or auto"):
        SiglipConfig(bias=1000)
    with pytest.raises(InputError, match="`bias` is 'prior', expected float or auto"):
        SiglipConfig(bias="prior")
