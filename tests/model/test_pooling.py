from __future__ import annotations

import pytest
import torch

from atr_moco_plugin.model.pooling import build_pooling


@pytest.mark.parametrize("kind", ["mean", "attention", "cls"])
def test_padding_never_changes_a_vector(kind: str) -> None:
    torch.manual_seed(0)
    pooling = build_pooling(kind, 12)
    with torch.no_grad():
        for p in pooling.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    states = torch.randn(3, 7, 12)
    lengths = torch.tensor([7, 4, 1])
    mask = torch.arange(7) < lengths[:, None]
    pooled = pooling(states, mask)
    noisy = torch.where(mask[:, :, None], states, torch.full_like(states, 1e4))
    torch.testing.assert_close(pooling(noisy, mask), pooled)
    for row, n in enumerate(lengths.tolist()):
        alone = pooling(states[row : row + 1, :n], mask[row : row + 1, :n])
        torch.testing.assert_close(alone[0], pooled[row], atol=1e-5, rtol=1e-5)


def test_mean_is_the_mean_and_attention_starts_from_it() -> None:
    states, mask = torch.randn(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)
    for kind in ("mean", "attention"):
        torch.testing.assert_close(build_pooling(kind, 4)(states, mask), states.mean(1))


@pytest.mark.parametrize("kind", ["attention", "cls"])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    pooling = build_pooling(kind, 128)
    states, mask = torch.randn(2, 5, 128), torch.ones(2, 5, dtype=torch.bool)
    pooling(states, mask).square().sum().backward()
    assert all(p.grad is not None for p in pooling.parameters())


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="mean, attention, cls"):
        build_pooling("max", 4)
