"""What is computed in float32 is so whatever the process allows for matrix products.

On a CPU with AMX or AVX-512 BF16 the precision `medium` takes bfloat16; on others nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig, atc_loss
from atr_moco_plugin.criterion.atc import contrastive_loss
from atr_moco_plugin.tensors.float32 import cosines, full_products, unit_norm

MATMUL = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def rows(n: int, seed: int) -> Tensor:
    return unit_norm(torch.randn(n, 256, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_cosines_and_their_gradients_are_float32(precision: str, autocast: bool) -> None:
    x, y = rows(64, 0).requires_grad_(), rows(256, 1).requires_grad_()
    weights = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    torch.set_float32_matmul_precision(precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = cosines(x, y)
    (found * weights).sum().backward()
    torch.set_float32_matmul_precision("highest")
    assert found.dtype == torch.float32
    for one, other in (
        (found, x.double() @ y.double().T),
        (x.grad, weights.double() @ y.double()),
        (y.grad, weights.double().T @ x.double()),
    ):
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=1e-5)


def losses(precision: str) -> list[Tensor]:
    """Both losses at a low temperature, and all their gradients."""
    torch.set_float32_matmul_precision(precision)
    audio, text = rows(32, 0).requires_grad_(), rows(32, 1).requires_grad_()
    temperature = torch.tensor([0.01], requires_grad=True)
    positives = torch.eye(32, 288, dtype=torch.bool)
    queues = rows(256, 2), rows(256, 3)
    momentum = rows(32, 4), rows(32, 5)
    one = atc_loss(audio, text, *momentum, *queues, positives, temperature, 0.4)
    other = contrastive_loss(audio, text, audio, text, positives[:, :32], temperature)
    (one + other).backward()
    return [one, other, audio.grad, text.grad, temperature.grad]


def test_losses_are_the_same_at_any_precision() -> None:
    expected = losses("highest")
    for precision in ("high", "medium"):
        for x, y in zip(losses(precision), expected, strict=True):
            assert torch.equal(x, y)
        assert torch.get_float32_matmul_precision() == precision


def test_hard_negatives_are_the_same_at_any_precision(tiny_model, tiny_batch) -> None:
    found = []
    for precision in ("highest", "medium"):
        criterion = MocoAtcAtm(
            tiny_model(), MocoAtcAtmConfig(atm_start=0, temperature=0.001)
        ).eval()
        batch = tiny_batch(b=8)
        a, u = criterion.model.audio(**batch["audio"])[0], criterion.model.text(**batch["text"])[0]
        torch.set_float32_matmul_precision(precision)
        found.append(cosines(a, u) / criterion.temperature)
    assert torch.equal(*found)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_choice_of_the_process_comes_back(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    with pytest.raises(KeyError), full_products():
        assert torch.get_float32_matmul_precision() == "highest" and not MATMUL.allow_tf32
        raise KeyError
    assert torch.get_float32_matmul_precision() == precision
    assert MATMUL.allow_tf32 == (precision != "highest")


@pytest.mark.skipif(not hasattr(MATMUL, "fp32_precision"), reason="a choice of PyTorch 2.9")
def test_a_choice_by_backend_comes_back() -> None:
    MATMUL.fp32_precision = "tf32"
    with full_products():
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == "tf32"
    cosines(rows(2, 0), rows(3, 1))
    assert MATMUL.fp32_precision == "tf32"
