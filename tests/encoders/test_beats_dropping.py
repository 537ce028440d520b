"""Patch dropout in BEATs: which patches are kept, and that nothing else changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from conftest import TINY_AUDIO
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from atr_moco_plugin.encoders.beats.dropping import draw_patches, draw_steps, steps_kept
from atr_moco_plugin.encoders.beats.features import BeatsFeatures
from atr_moco_plugin.errors import InputError


def encoder(**options: object) -> BeatsEncoder:
    torch.manual_seed(0)
    return BeatsEncoder(BeatsConfig(**{**TINY_AUDIO, **options})).eval()


def clips(*seconds: float) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([round(16_000 * x) for x in seconds])
    generator = torch.Generator().manual_seed(1)
    waveforms = torch.randn(len(seconds), int(lengths.max()), generator=generator) * 0.1
    return waveforms * (torch.arange(waveforms.size(1)) < lengths[:, None]), lengths


@given(
    steps=st.lists(st.integers(1, 200), min_size=1, max_size=12),
    share=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 100),
)
def test_every_clip_keeps_its_own_share_and_at_least_one_step(
    steps: list[int], share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    kept = draw_steps(steps, share)
    assert kept.tolist() == sorted(set(kept.tolist())) and kept.min() >= 0
    for own in steps:
        assert int((kept < own).sum()) == steps_kept(own, share) >= 1
    assert len(kept) == steps_kept(max(steps), share)


@given(
    steps=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    bands=st.integers(1, 8),
    data=st.data(),
)
def test_patches_are_a_grid_of_whole_steps_and_rows(
    steps: list[int], bands: int, data: st.DataObject
) -> None:
    dropped = data.draw(st.integers(0, bands - 1))
    kept = draw_patches(steps, bands, 0.4, dropped)
    rows = {tuple((kept[kept // bands == step] % bands).tolist()) for step in kept // bands}
    assert len(rows) == 1 and len(next(iter(rows))) == bands - dropped
    assert len(kept) == steps_kept(max(steps), 0.4) * (bands - dropped)
    assert kept.tolist() == sorted(kept.tolist())


def test_draws_are_uniform_follow_the_global_seed_and_differ() -> None:
    torch.manual_seed(0)
    drawn = torch.zeros(10)
    rows = torch.zeros(4)
    for _ in range(4000):
        kept = draw_patches([10, 10], 4, 0.5, 1)
        drawn[(kept // 4).unique()] += 1
        rows[(kept % 4).unique()] += 1
    torch.testing.assert_close(drawn / 4000, torch.full((10,), 0.5), atol=0.04, rtol=0)
    torch.testing.assert_close(rows / 4000, torch.full((4,), 0.75), atol=0.04, rtol=0)
    torch.manual_seed(3)
    first = [draw_patches([40], 8, 0.3, 2).tolist() for _ in range(3)]
    assert len({tuple(x) for x in first}) == 3
    torch.manual_seed(3)
    assert [draw_patches([40], 8, 0.3, 2).tolist() for _ in range(3)] == first


def masked_out(model: BeatsEncoder, features: BeatsFeatures, kept: Tensor) -> Iterator[Tensor]:
    """What dropping is, another way: every token goes through every layer, and dropped ones are
    no keys. A query's state depends on its keys alone."""
    kept_mask = torch.zeros_like(features.mask)
    kept_mask[:, kept] = True
    transformer = model.encoder
    patches = model.layer_norm(
        model.patch_embedding(features.fbank.unsqueeze(1)).flatten(2).transpose(1, 2)
    )
    x = model.post_extract_proj(patches).masked_fill(~features.mask.unsqueeze(-1), 0.0)
    positions = transformer.pos_conv(x.transpose(1, 2))[..., : x.size(1)]
    x = transformer.layer_norm(x + torch.nn.functional.gelu(positions).transpose(1, 2))
    bias = transformer.relative_attention_bias
    relative = None if bias is None else bias(x.size(1))
    keys = torch.where(features.mask & kept_mask, 0.0, -3e4)[:, None, None, :]
    for layer in transformer.layers:
        x = layer(x, relative, keys)
    for row, mask in zip(x, features.mask & kept_mask, strict=True):
        yield row[mask]


@pytest.mark.parametrize(
    "options", [{}, {"relative_position_embedding": False, "gru_rel_pos": False}]
)
@pytest.mark.parametrize("seconds", [(1.0, 1.0), (1.3, 0.2, 0.7)])
def test_dropped_tokens_are_no_keys_and_nothing_else_changes(
    seconds: tuple[float, ...], options: dict[str, object]
) -> None:
    model = encoder(**options)
    waveforms, lengths = clips(*seconds)
    features = model.features(waveforms, lengths)
    torch.manual_seed(2)
    kept = model.draw_patches(waveforms, lengths, time=0.5, bands=3)
    assert 0 < len(kept) < 0.5 * features.mask.size(1)
    states, mask = model(features=features._replace(kept=kept))
    assert states.shape[:2] == mask.shape == (len(seconds), len(kept))
    for ours, valid, theirs in zip(states, mask, masked_out(model, features, kept), strict=True):
        assert bool(valid.any())
        torch.testing.assert_close(ours[valid], theirs, atol=2e-6, rtol=1e-5)


def test_the_gradient_is_that_of_masked_keys() -> None:
    grads = []
    for dropping in (True, False):
        model = encoder()
        waveforms, lengths = clips(1.0, 0.6)
        features = model.features(waveforms, lengths)
        torch.manual_seed(2)
        kept = model.draw_patches(waveforms, lengths, time=0.5, bands=3)
        if dropping:
            states, mask = model(features=features._replace(kept=kept))
            rows = [row[valid] for row, valid in zip(states, mask, strict=True)]
        else:
            rows = list(masked_out(model, features, kept))
        sum((row * torch.linspace(-1, 1, row.size(1))).square().sum() for row in rows).backward()
        grads.append({name: x.grad for name, x in model.named_parameters()})
    assert grads[0].keys() == grads[1].keys()
    largest = max(float(x.abs().max()) for x in grads[1].values())
    for name, ours in grads[0].items():
        torch.testing.assert_close(ours, grads[1][name], atol=1e-6 * largest, rtol=1e-4)
    assert grads[0]["encoder.relative_attention_bias.weight"].abs().max() > 0


def test_keeping_all_tokens_changes_nothing() -> None:
    model = encoder()
    waveforms, lengths = clips(1.0, 0.5)
    features = model.features(waveforms, lengths)
    kept = model.draw_patches(waveforms, lengths, time=0.01, bands=0)
    assert kept.tolist() == list(range(features.mask.size(1)))
    states, mask = model(features=features._replace(kept=kept))
    expected, expected_mask = model(features=features)
    assert torch.equal(states, expected) and torch.equal(mask, expected_mask)


def test_frozen_layers_see_every_token_and_those_above_the_kept_ones() -> None:
    model = encoder()
    waveforms, lengths = clips(1.0, 0.5)
    features = model.features(waveforms, lengths)
    kept = model.draw_patches(waveforms, lengths, time=0.5, bands=2)
    lower = model.lower(features=features._replace(kept=kept), layers=1)
    whole = model.lower(features=features, layers=1)
    assert torch.equal(lower.states, whole.states)
    states, mask = model.upper(lower)
    assert states.shape[:2] == mask.shape == (2, len(kept))
    assert torch.equal(mask, features.mask[:, kept])
    expected, _ = model.upper(whole)
    torch.testing.assert_close(model.upper(lower._replace(kept=None)).states, expected)
    assert not torch.allclose(states, expected[:, kept], atol=1e-4)
    # With no frozen layer it is what forward does.
    none = model.lower(features=features._replace(kept=kept), layers=0)
    torch.testing.assert_close(
        model.upper(none).states, model(features=features._replace(kept=kept)).states
    )


def test_the_official_padding_mask_is_refused() -> None:
    model = encoder()
    model = BeatsEncoder(dataclasses.replace(model.config, padding_mask="official"))
    with pytest.raises(
        InputError, match="`padding_mask` is official, but patch dropout needs exact"
    ):
        model.draw_patches(*clips(1.0), time=0.3, bands=0)
