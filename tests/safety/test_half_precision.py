"""Losses, similarities and queues are in float32, whatever the model around them computes in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from linear import LinearModel, linear_batch
from torch import Tensor
from torch.optim import AdamW

import atr_moco_plugin.criterion.in_batch as baseline
import atr_moco_plugin.criterion.moco_atc as moco
import atr_moco_plugin.criterion.moco_atc_atm as moco_matching
import atr_moco_plugin.criterion.pairs as pairs
import atr_moco_plugin.criterion.siglip as siglip
import atr_moco_plugin.criterion.sogclr as sogclr
from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
    Siglip,
    SiglipConfig,
    SogClr,
    SogClrConfig,
)
from atr_moco_plugin.safety import FiniteGuard

HALF = (torch.bfloat16, torch.float16)
CRITERIA: dict[str, Any] = {
    "atc": lambda model: Atc(model, AtcConfig()),
    "siglip": lambda model: Siglip(model, SiglipConfig()),
    "sogclr": lambda model: SogClr(model, SogClrConfig()),
    "moco_atc": lambda model: MocoAtc(model, MocoAtcConfig(queue_size=6, momentum=0.5)),
    "moco_atc_atm": lambda model: MocoAtcAtm(
        model, MocoAtcAtmConfig(atm_start=0, queue_size=6, momentum=0.5)
    ),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """How far a loss is from the same one without autocast, and a similarity from float32."""
    errors: dict[str, list[float]] = {"contrastive": [], "similarity": [], "matching": []}

    def spied(module: Any, name: str, kind: str) -> None:
        function = getattr(module, name)

        def spy(first: Tensor, *args: Any, **kwargs: Any) -> Any:
            found = function(first, *args, **kwargs)
            with torch.autocast("cpu", enabled=False):
                if kind == "similarity":
                    rounded = first.to(torch.bfloat16).float()
                    errors[kind].append(float(first.dtype != torch.float32))
                    assert not torch.equal(first, rounded)
                else:
                    exact = function(first, *args, **kwargs)
                    errors[kind].append(float((found - exact).abs()))
            return found

        monkeypatch.setattr(module, name, spy)

    spied(baseline, "contrastive_loss", "contrastive")
    spied(siglip, "sigmoid_loss", "contrastive")
    spied(sogclr, "global_contrastive_loss", "contrastive")
    spied(moco, "atc_loss", "contrastive")
    spied(pairs, "hard_negatives", "similarity")
    spied(moco_matching, "atm_loss", "matching")
    return errors


def check(criterion: Atc, losses: dict[str, Tensor], seen: dict[str, list[float]]) -> None:
    assert all(losses[x].dtype == torch.float32 for x in losses if x.startswith("loss"))
    assert all(bool(x.isfinite().all()) for x in losses.values())
    assert seen["contrastive"] and all(error <= 1e-6 for x in seen.values() for error in x)
    assert bool(seen["similarity"]) == bool(seen["matching"]) == isinstance(criterion, MocoAtcAtm)
    for queue in criterion.queues.values():
        assert queue.embeddings.dtype == torch.float32
        assert torch.allclose(queue.valid[0].norm(dim=1), torch.ones(len(queue)), atol=1e-6)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", CRITERIA)
def test_under_autocast(
    name: str, dtype: torch.dtype, tiny_model, tiny_batch, seen: dict[str, list[float]]
) -> None:
    criterion, exact = (CRITERIA[name](tiny_model()).train() for _ in range(2))
    criterion.total_steps = exact.total_steps = 4
    for seed in (1, 2):  # the second has a queue
        with torch.autocast("cpu", dtype=dtype):
            losses = criterion(**tiny_batch(seed=seed))
        losses["loss"].backward()
        criterion.on_optimizer_step()
        check(criterion, losses, seen)
        expected = exact(**tiny_batch(seed=seed))
        exact.on_optimizer_step()
        # Half precision of the towers moves the loss by what a similarity does over temperature.
        assert losses["loss_atc"].item() == pytest.approx(expected["loss_atc"].item(), rel=0.05)
    assert all(bool(p.grad.isfinite().all()) for p in criterion.parameters() if p.grad is not None)


@pytest.mark.parametrize("cast", ["bfloat16", "half", "double", "to", "model alone"])
@pytest.mark.parametrize("foreach", [False, True])
def test_the_temperature_learns_in_float32(cast: str, foreach: bool) -> None:
    criterion, exact = (MocoAtc(LinearModel(), MocoAtcConfig(queue_size=8)) for _ in range(2))
    dtype = {"half": torch.float16, "double": torch.float64}.get(cast, torch.bfloat16)
    if cast == "model alone":
        criterion.model.to(dtype)
    else:
        assert (criterion.to(dtype) if cast == "to" else getattr(criterion, cast)()) is criterion
    assert criterion.temperature.dtype == torch.float32
    assert criterion.model.audio.encoder.weight.dtype == dtype
    for each in (criterion, exact):
        # An epsilon that float16 has.
        optimizer = AdamW(each.parameters(), lr=1e-5, eps=1e-5, foreach=foreach)
        FiniteGuard(optimizer, each)
        half = each is criterion and dtype != torch.float64
        with pytest.warns(UserWarning, match="half precision") if half else nullcontext():
            each.attach(optimizer)
        for _ in range(30):
            each(**linear_batch())["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    # Thirty steps of AdamW in one direction.
    assert abs(criterion.temperature.item() - 0.07) == pytest.approx(30e-5, rel=0.05)
    assert criterion.temperature.item() == pytest.approx(exact.temperature.item(), abs=2e-5)


def test_the_temperature_moves_between_devices() -> None:
    criterion = Atc(LinearModel(), AtcConfig()).to("meta", torch.bfloat16)
    assert criterion.temperature.is_meta and criterion.temperature.dtype == torch.float32
    assert criterion.model.head.weight.is_meta


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", CRITERIA)
def test_when_the_whole_criterion_is_cast(
    name: str, dtype: torch.dtype, tiny_model, tiny_batch, seen: dict[str, list[float]]
) -> None:
    criterion = CRITERIA[name](tiny_model()).train().to(dtype)
    criterion.total_steps = 4
    for seed in (1, 2):
        batch = tiny_batch(seed=seed)
        with torch.autocast("cpu", dtype=dtype):
            losses = criterion(**batch)
        check(criterion, losses, seen)
        criterion.on_optimizer_step()
    for part in ("audio_m", "text_m"):
        copies = getattr(criterion, part, torch.nn.Identity()).parameters()
        assert all(p.dtype == torch.float32 for p in copies)
