"""The sigmoid loss against float64, and its bias."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel, linear_batch
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.criterion import Siglip, SiglipConfig, sigmoid_loss
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


def test_the_bias_starts_where_the_option_says_is_learned_and_saved() -> None:
    criterion = Siglip(LinearModel(), SiglipConfig()).train()
    assert criterion(**linear_batch())["bias"].item() == -10
    optimizer = torch.optim.AdamW(parameter_groups(criterion, 0.5, lr=0.01))
    criterion.attach(optimizer)
    for seed in range(3):
        criterion(**linear_batch(seed))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert criterion.bias.item() != pytest.approx(-10, abs=1e-3)
    loaded = Siglip(LinearModel(), SiglipConfig(bias=-3.0)).train()
    assert loaded.bias.item() == -3
    loaded.load_state_dict(criterion.state_dict())
    assert_close(loaded(**linear_batch(7)), criterion(**linear_batch(7)), atol=0, rtol=0)
    loaded.reset_parameters()
    assert loaded.bias.item() == -3


def test_neither_bias_nor_temperature_decays() -> None:
    criterion = Siglip(LinearModel(), SiglipConfig())
    plain = [g["params"] for g in parameter_groups(criterion, 0.1) if not g["weight_decay"]]
    ids = {id(p) for params in plain for p in params}
    assert {id(criterion.bias), id(criterion.temperature)} <= ids
    assert criterion.bias.shape == (1,)
    assert criterion.to(torch.bfloat16).bias.dtype == torch.float32


def test_a_bias_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="`bias` is 1000, expected -100 to 100"):
        SiglipConfig(bias=1000)
