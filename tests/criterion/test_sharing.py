"""Frozen weights exist once, and the losses are those of two full copies."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from conftest import TINY_AUDIO, TINY_TEXT

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.model import build_model, freeze_encoder, model_config
from atr_moco_plugin.momentum import MomentumCopy

FREEZES = [(1, 1), (2, 2), ("all", "all"), ("all", "none"), (1, "all")]


def model_of(audio: Any = "none", text: Any = "none", **options: Any) -> Any:
    torch.manual_seed(0)
    values = {
        "embed_dim": 12,
        "audio": {"name": "beats", "config": TINY_AUDIO, "freeze": audio},
        "text": {"name": "bert", "config": TINY_TEXT, "freeze": text},
        **options,
    }
    return build_model(model_config(values))


def criterion_of(*freeze: Any, kind: Any = MocoAtcAtm) -> Any:
    options: dict[str, Any] = {"queue_size": 12, "momentum": 0.9, "alpha_warmup_steps": 2}
    config = MocoAtcConfig(**options)
    if kind is MocoAtcAtm:
        config = MocoAtcAtmConfig(atm_start=0, **options)
    return kind(model_of(*freeze), config).train()


class FullCopy(MomentumCopy):
    """As before: a copy of every weight, which runs the whole tower on the raw inputs."""

    def __init__(self, online: Any) -> None:
        super().__init__(online)
        self.module = copy.deepcopy(self.module)
        self.raw: dict[str, Any] = {}
        prepare = online.prepare

        def recorded(*args: Any, **inputs: Any) -> Any:
            if inputs.keys() & {"waveforms", "input_ids"}:  # of the criterion
                self.raw = inputs
            return prepare(*args, **inputs)

        online.prepare = recorded

    @torch.no_grad()
    def forward(self, **prepared: Any) -> Any:
        return self.module(**self.raw)


def unshared(criterion: Any) -> Any:
    """The same criterion without sharing weights or outputs."""
    old = copy.deepcopy(criterion)
    for name in ("audio", "text"):
        setattr(old, f"{name}_m", FullCopy(getattr(old.model, name)))
    return old


def train(criterion: Any, batches: list[Any]) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW([p for p in criterion.parameters() if p.requires_grad], lr=0.01)
    handle, found = criterion.attach(optimizer), []
    for batch in batches:
        losses = criterion(**batch)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append({name: x.item() for name, x in losses.items()})
    handle.remove()
    return found


@pytest.mark.parametrize("kind", [MocoAtc, MocoAtcAtm])
@pytest.mark.parametrize("freeze", FREEZES)
def test_the_losses_are_those_of_two_copies_to_the_last_bit(tiny_batch, freeze, kind) -> None:
    batches = [tiny_batch(seed=seed) for seed in range(5)]
    shared = criterion_of(*freeze, kind=kind)
    old = unshared(shared)
    size = lambda x: sum(p.numel() for p in x.parameters())  # noqa: E731
    assert size(old) > size(shared)
    assert train(shared, batches) == train(old, batches)
    for name, p in shared.model.named_parameters():
        assert torch.equal(p, old.model.get_parameter(name)), name
    for ours, theirs in ((shared.audio_m, old.audio_m), (shared.text_m, old.text_m)):
        for name, p in ours.named_parameters():
            assert torch.equal(p, theirs.get_parameter(name)), name


def test_a_copy_of_a_frozen_encoder_holds_its_pooling_and_projection_alone() -> None:
    criterion = criterion_of("all", "all")
    own = {id(p) for p in criterion.model.parameters()}
    for name in ("audio", "text"):
        copied = getattr(criterion, f"{name}_m").module
        new = {n for n, p in copied.named_parameters() if id(p) not in own}
        assert new == {"projection.weight", "projection.bias"}


def test_one_set_of_weights_in_memory_and_in_the_state() -> None:
    criterion = criterion_of(1, "all")
    state = criterion.state_dict()
    assert not any("_m.module.encoder.embeddings" in name for name in state)
    assert "text_m.module.projection.weight" in state
    assert any("audio_m.module.encoder.encoder.layers.1" in name for name in state)
    everything = sum(p.numel() for p in criterion.parameters())
    trained = sum(p.numel() for p in criterion.model.parameters() if p.requires_grad)
    head = sum(p.numel() for p in criterion.model.head.parameters())
    whole = sum(p.numel() for p in criterion.model.parameters())
    assert everything == whole + trained - head + 1  # the temperature


@pytest.mark.parametrize(("before", "after"), [((1, 1), (1, 1)), (("none", "none"), (1, "all")),
                                               ((1, "all"), ("none", "none"))])  # fmt: skip
def test_a_state_loads_whatever_was_frozen(tiny_batch, before, after) -> None:
    first = criterion_of(*before)
    train(first, [tiny_batch(seed=seed) for seed in range(2)])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = criterion_of(*after)
    kept = dict(state)
    second.load_state_dict(state)
    assert state.keys() == kept.keys(), "the state that was given has changed"
    for name, p in second.model.named_parameters():
        assert torch.equal(p, first.model.get_parameter(name)), name
    for part in ("audio", "text"):
        old, new = (getattr(x, f"{part}_m") for x in (first, second))
        online = dict(getattr(second.model, part).named_parameters())
        shared = new.shared_names(getattr(second.model, part))
        for name, p in new.module.named_parameters():
            expected = online[name] if name in shared else old.module.get_parameter(name)
            assert torch.equal(p, expected), name
    found, expected = (train(x, [tiny_batch(seed=9)]) for x in (second, copy.deepcopy(second)))
    assert found == expected


def test_a_deep_copy_shares_its_own_weights() -> None:
    criterion = criterion_of(1, 1)
    again = copy.deepcopy(criterion)
    for part in ("audio", "text"):
        names = getattr(again, f"{part}_m").shared_names(getattr(again.model, part))
        assert names == getattr(criterion, f"{part}_m").shared_names(getattr(criterion.model, part))
        assert names
        assert not getattr(again, f"{part}_m").shared_names(getattr(criterion.model, part))


def test_a_change_of_dtype_leaves_the_copy_in_float32(tiny_batch) -> None:
    criterion = criterion_of(1, "all").bfloat16()
    losses = criterion(**tiny_batch())
    assert losses["loss"].isfinite()
    assert {p.dtype for p in criterion.audio_m.parameters()} == {torch.float32}
    assert not criterion.text_m.shared_names(criterion.model.text)
    assert {p.dtype for p in criterion.model.parameters()} == {torch.bfloat16}


def test_layers_that_begin_to_train_get_a_copy_of_their_own(tiny_batch) -> None:
    """Gradual unfreezing: as if the copy had been whole from the start."""
    batches = [tiny_batch(seed=seed) for seed in range(4)]
    criterion = criterion_of(1, 1)
    old = unshared(criterion)
    for one in (criterion, old):
        train(one, batches[:2])
        freeze_encoder(one.model.audio, "none")
    assert train(criterion, batches[2:]) == train(old, batches[2:])
    tower = criterion.model.audio
    assert not criterion.audio_m.shared_names(tower)
    for name, p in criterion.audio_m.module.named_parameters():
        assert not torch.equal(p, tower.get_parameter(name)) or not p.any(), name


def test_made_on_meta_and_moved(tiny_batch) -> None:
    with torch.device("meta"):
        criterion = criterion_of(1, "all")
    criterion.to_empty(device="cpu")
    source = criterion_of(1, "all")
    criterion.model.load_state_dict(source.model.state_dict())
    criterion.reset_parameters()
    batches = [tiny_batch(seed=seed) for seed in range(3)]
    assert train(criterion, batches) == train(source, batches)
    for part in ("audio", "text"):
        names = [
            getattr(x, f"{part}_m").shared_names(getattr(x.model, part))
            for x in (criterion, source)
        ]
        assert names[0] == names[1] != set()
