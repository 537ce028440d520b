"""The decoupled loss against float64, as a criterion and as an option."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel, linear_batch
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    Dcl,
    DclConfig,
    MocoAtcConfig,
    contrastive_loss,
)
from atr_moco_plugin.errors import InputError


def unit(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 8, generator=generator, dtype=torch.float64), dim=1)


def oracle(
    audio: Tensor, text: Tensor, columns: tuple[Tensor, Tensor], positives: Tensor, tau: Tensor
) -> Tensor:
    """One query at a time, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for queries, keys in ((audio, columns[1]), (text, columns[0])):
        for query, row in zip(queries, positives, strict=True):
            if row.all():
                continue
            logits = keys @ query / tau
            total = total + logits[~row].exp().sum().log() - logits[row].mean()
    return total.squeeze() / (2 * len(audio))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (3, 8)])
@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_loss_and_gradients_equal_a_float64_oracle(n: int, m: int, tau: float) -> None:
    positives = torch.rand(n, m, generator=torch.Generator().manual_seed(1)) < 0.3
    positives[:, :n] |= torch.eye(n, dtype=torch.bool)
    positives[0] = True  # a query without any negative
    exact = [unit(x, seed) for seed, x in enumerate((n, n, m, m))]
    exact = [*exact, torch.tensor([tau]).double()]
    single = [x.float().requires_grad_() for x in exact]
    exact = [x.requires_grad_() for x in exact]
    found = contrastive_loss(*single[:4], positives, single[4], decoupled=True)
    expected = oracle(*exact[:2], (exact[2], exact[3]), positives, exact[4])
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    (found + 0 * sum(x.sum() for x in single)).backward()
    (expected + 0 * sum(x.sum() for x in exact)).backward()
    for x, y in zip(single, exact, strict=True):
        assert_close(x.grad.double(), y.grad, atol=1e-3, rtol=1e-4)


def test_it_is_the_contrastive_loss_without_the_positive_in_the_denominator() -> None:
    audio, text = unit(4, 0).float(), unit(4, 1).float()
    eye, tau = torch.eye(4, dtype=torch.bool), torch.tensor([0.1])
    logits = audio @ text.T / tau
    off = logits.masked_fill(eye, -torch.inf)
    expected = (off.logsumexp(1) + off.logsumexp(0) - 2 * logits.diag()).mean() / 2
    found = contrastive_loss(audio, text, audio, text, eye, tau, decoupled=True)
    assert_close(found, expected)
    assert found < contrastive_loss(audio, text, audio, text, eye, tau)


def test_the_name_is_the_option_with_positives_by_ids() -> None:
    batch = linear_batch()
    batch["caption_ids"][1] = batch["caption_ids"][0]
    named = Dcl(LinearModel(), DclConfig())
    option = Atc(LinearModel(), AtcConfig(decoupled=True, positives="clip_or_caption"))
    plain = Atc(LinearModel(), AtcConfig(positives="clip_or_caption"))
    assert_close(named(**batch), option(**batch), atol=0, rtol=0)
    assert named(**batch)["loss"] != plain(**batch)["loss"]


def test_a_batch_of_one_clip_has_no_loss() -> None:
    batch = linear_batch()
    batch["clip_ids"][:] = 0
    criterion = Dcl(LinearModel(), DclConfig()).train()
    loss = criterion(**batch)["loss"]
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in criterion.parameters() if p.grad is not None)


def test_what_has_a_queue_has_no_such_option() -> None:
    assert "decoupled" not in {x.name for x in fields(MocoAtcConfig)}
    with pytest.raises(InputError, match="`decoupled` is False, which is the criterion `atc`"):
        DclConfig(decoupled=False)
