"""A criterion made on the device ``meta``, then ``to_empty`` and ``reset_parameters``."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from linear import LinearModel, linear_batch
from torch import Tensor, nn

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    Siglip,
    SiglipConfig,
    SogClr,
    SogClrConfig,
)
from atr_moco_plugin.encoders.beats.attention import GatedSelfAttention
from atr_moco_plugin.encoders.beats.relative_position import RelativePositionBias
from atr_moco_plugin.model.pooling import build_pooling
from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.queue import EmbeddingQueue

CONFIG = MocoAtcAtmConfig(atm_start=0, queue_size="auto", queue_min=4, queue_max=16, momentum=0.9)


def emptied(module: nn.Module) -> None:
    """What ``to_empty`` leaves in the worst case."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for x in (*module.parameters(), *module.buffers()):
            x.fill_(torch.nan if x.is_floating_point() else 7)


def parents_first(module: nn.Module) -> Iterator[nn.Module]:
    yield from module.modules()


def children_first(module: nn.Module) -> Iterator[nn.Module]:
    yield from reversed(list(module.modules()))


def reset(module: nn.Module, order=parents_first) -> None:
    for x in order(module):
        if hasattr(x, "reset_parameters"):
            x.reset_parameters()


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_buffers())


@pytest.mark.parametrize("order", [parents_first, children_first])
def test_a_criterion_is_as_good_as_new(order, tiny_model, tiny_batch) -> None:
    options = {"audio_pooling": "cls"}
    fresh = MocoAtcAtm(tiny_model(**options), CONFIG)
    with torch.device("meta"):
        criterion = MocoAtcAtm(tiny_model(**options), CONFIG)
    emptied(criterion)
    reset(criterion, order)
    assert buffers(fresh).keys() == buffers(criterion).keys()
    for name, value in buffers(criterion).items():
        assert torch.equal(value, buffers(fresh)[name]), name
    assert torch.equal(criterion.temperature, fresh.temperature)
    assert all(bool(p.isfinite().all()) for p in criterion.model.parameters())
    assert (len(criterion.audio_queue), criterion.audio_queue.size) == (0, 4)
    criterion.set_data("toy")  # finds no other data set

    optimizer = torch.optim.AdamW(criterion.parameters(), lr=1e-3)
    before = copy.deepcopy(criterion.model.audio.state_dict())
    criterion.attach(optimizer)
    for name, value in criterion.audio_m.module.state_dict().items():
        assert torch.equal(value, before[name]), name
    for seed in range(2):
        loss = criterion(**tiny_batch(seed=seed))["loss"]
        loss.backward()
        optimizer.step()
        assert bool(loss.isfinite()) and int(criterion.num_steps) == seed + 1
    online = criterion.model.audio.projection.weight
    assert not torch.equal(criterion.audio_m.module.projection.weight, online)


def test_copies_start_with_the_first_pass_where_nothing_is_attached() -> None:
    with torch.device("meta"):
        criterion = MocoAtc(LinearModel(), CONFIG)
    emptied(criterion)
    reset(criterion)
    criterion(**linear_batch())
    for copied, online in zip(
        criterion.text_m.parameters(), criterion.model.text.parameters(), strict=True
    ):
        assert torch.equal(copied, online)


def test_a_state_that_is_loaded_afterwards_stays() -> None:
    saved = MocoAtc(LinearModel(), CONFIG)
    with torch.no_grad():
        saved.audio_m.module.projection.weight.add_(1.0)
    saved(**linear_batch())
    with torch.device("meta"):
        criterion = MocoAtc(LinearModel(), CONFIG)
    emptied(criterion)
    reset(criterion)
    criterion.load_state_dict(saved.state_dict())
    criterion.attach(torch.optim.SGD(criterion.parameters(), lr=0.1))
    for name, value in saved.state_dict().items():
        assert torch.equal(value, criterion.state_dict()[name]), name


def test_a_criterion_that_is_in_use_begins_anew() -> None:
    criterion = MocoAtc(LinearModel(), CONFIG)
    criterion(**linear_batch())
    criterion.on_optimizer_step()
    criterion.reset_parameters()
    fresh = MocoAtc(LinearModel(), CONFIG)
    assert all(torch.equal(x, buffers(fresh)[name]) for name, x in buffers(criterion).items())
    assert criterion.alpha == fresh.alpha and len(criterion.audio_queue) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: EmbeddingQueue(4, 3, max_size=8),
        lambda: EmbeddingQueue(0, 3),
        lambda: build_pooling("attention", 8),
        lambda: build_pooling("cls", 8),
        lambda: RelativePositionBias(8, 16, 2),
        lambda: Atc(LinearModel(), AtcConfig()),
        lambda: Siglip(LinearModel(), SiglipConfig()),
        lambda: SogClr(LinearModel(), SogClrConfig()),
    ],
    ids=["queue", "no queue", "attention", "cls", "bias", "atc", "siglip", "sogclr"],
)
def test_a_module_of_its_own(make) -> None:
    with torch.device("meta"):
        module = make()
    emptied(module)
    reset(module)
    fresh = make()
    assert all(torch.equal(x, buffers(fresh)[name]) for name, x in buffers(module).items())
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    if isinstance(module, EmbeddingQueue):
        module.enqueue(torch.eye(3), torch.arange(3), torch.arange(3))
        assert len(module) == min(3, module.size)


def test_beats_weights_that_no_layer_of_torch_resets(tiny_model) -> None:
    with torch.device("meta"):
        encoder = tiny_model().audio.encoder
    emptied(encoder)
    reset(encoder)
    gates = [x.grep_a for x in encoder.modules() if isinstance(x, GatedSelfAttention)]
    assert gates and all(bool((x == 1).all()) for x in gates)
    weight = encoder.encoder.pos_conv[0].weight
    fresh = tiny_model().audio.encoder.encoder.pos_conv[0].weight
    assert weight.std().item() == pytest.approx(fresh.std().item(), rel=0.2)


def test_a_copy_that_was_reset_follows_at_once() -> None:
    online = nn.Linear(2, 2)
    average = MomentumCopy(online)
    with torch.no_grad():
        average.module.weight.fill_(torch.nan)
    average.reset_parameters()
    average.update(online, momentum=0.9)
    assert torch.equal(average.module.weight, online.weight)
    average.update(online, momentum=0.9)
