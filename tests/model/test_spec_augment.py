from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import AudioTower, model_config
from atr_moco_plugin.model.spec_augment import SpecAugmentConfig, spec_augment
from atr_moco_plugin.tokens import AudioTokens

CONFIG = SpecAugmentConfig(time_masks=2, time_width=12, freq_masks=1, freq_width=6)


def masked(frames: list[int], length: int, bins: int, config: SpecAugmentConfig) -> Tensor:
    """Where the masks are, over a spectrogram of ones."""
    ones = torch.ones(len(frames), length, bins)
    out = spec_augment(ones, torch.tensor(frames), config)
    assert set(out.unique().tolist()) <= {0.0, 1.0}
    assert bool((ones == 1).all())
    return out == 0


def runs(row: Tensor) -> list[int]:
    """Lengths of the runs of ``True``."""
    found, current = [], 0
    for value in [*row.tolist(), False]:
        if value:
            current += 1
        elif current:
            found.append(current)
            current = 0
    return found


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    masks=st.integers(0, 3),
    time_width=st.integers(0, 50),
    fraction=st.sampled_from([0.0, 0.3, 1.0]),
    freq_width=st.integers(0, 20),
    seed=st.integers(0, 1000),
)
def test_masks_are_bands_within_each_clip(
    frames: list[int], masks: int, time_width: int, fraction: float, freq_width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    time = SpecAugmentConfig(
        time_masks=masks, time_width=time_width, time_fraction=fraction, freq_masks=0
    )
    freq = SpecAugmentConfig(time_masks=0, freq_masks=masks, freq_width=freq_width)
    for valid, where in zip(frames, masked(frames, 45, 10, time), strict=True):
        rows = where.all(dim=1)
        assert torch.equal(where.any(dim=1), rows)
        assert not rows[valid:].any()
        assert int(rows.sum()) <= masks * int(min(time_width, fraction * valid))
        assert len(runs(rows)) <= masks
    for valid, where in zip(frames, masked(frames, 45, 10, freq), strict=True):
        assert not where[valid:].any()
        columns = where[:valid].all(dim=0)
        assert torch.equal(where[:valid].any(dim=0), columns)
        assert int(columns.sum()) <= masks * min(freq_width, 10)
        assert len(runs(columns)) <= masks


def test_widths_are_uniform_and_every_place_is_reached() -> None:
    torch.manual_seed(0)
    config = SpecAugmentConfig(time_masks=1, time_width=4, time_fraction=1.0, freq_masks=0)
    where = masked([12] * 4000, 20, 2, config)[:, :, 0]
    widths = torch.bincount(where.sum(dim=1), minlength=5) / 4000
    torch.testing.assert_close(widths, torch.full((5,), 0.2), atol=0.03, rtol=0)
    reached = where.float().mean(dim=0)
    assert bool((reached[:12] > 0.05).all()) and not where[:, 12:].any()


def test_clips_of_a_batch_are_masked_apart_and_draws_follow_the_global_seed() -> None:
    torch.manual_seed(0)
    first = masked([40] * 6, 40, 10, CONFIG)
    assert len({tuple(row.flatten().tolist()) for row in first}) > 1
    second = masked([40] * 6, 40, 10, CONFIG)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(masked([40] * 6, 40, 10, CONFIG), first)


OPTIONS = {"time_masks": 2, "time_width": 8, "freq_masks": 2, "freq_width": 40}


def test_the_tower_masks_in_training_alone(tiny_model: Any, tiny_batch: Any) -> None:
    plain, tower = tiny_model().audio, tiny_model(spec_augment=OPTIONS).audio
    batch = tiny_batch()["audio"]
    torch.manual_seed(0)
    trained = tower.train()(**batch)[0]
    assert not torch.allclose(trained, plain.train()(**batch)[0], atol=1e-3)
    torch.manual_seed(0)
    # From features as well as from waveforms, and with a gradient.
    again = tower(**tower.prepare(**batch))[0]
    torch.testing.assert_close(again, trained)
    again.sum().backward()
    assert tower.encoder.patch_embedding.weight.grad.abs().max() > 0
    tower.eval()
    expected = plain.eval()(**batch)[0]
    assert torch.equal(tower(**batch)[0], expected)
    state = torch.get_rng_state()
    assert torch.equal(tower(**tower.prepare(**batch))[0], expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_padding_moves_no_embedding_in_eval_mode(tiny_model: Any) -> None:
    tower = tiny_model(spec_augment=OPTIONS).audio.eval()
    wave = torch.randn(1, 6_000) * 0.1
    alone = tower(wave)[0]
    padded = torch.cat([torch.nn.functional.pad(wave, (0, 3_000)), torch.randn(1, 9_000)])
    both = tower(padded, torch.tensor([6_000, 9_000]))[0]
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("padding_mask", ["exact", "official"])
def test_masks_stay_off_the_padding(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, padding_mask: str
) -> None:
    tower = tiny_model(spec_augment=OPTIONS | {"time_masks": 20, "time_fraction": 1.0}).audio
    object.__setattr__(tower.encoder.config, "padding_mask", padding_mask)
    seen: list[Tensor] = []
    encoder = type(tower.encoder)

    def forward(self: Any, *, features: Any) -> Any:
        seen.append(features.fbank)
        return original(self, features=features)

    original = encoder.forward
    monkeypatch.setattr(encoder, "forward", forward)
    waveforms, lengths = torch.randn(2, 9_000), torch.tensor([9_000, 4_500])
    tower.train()(waveforms, lengths)
    clean = tower.encoder.features(waveforms, lengths)
    changed = (seen[0] != clean.fbank).any(dim=2)
    # 4,500 samples are one token step of 16 frames, 9,000 are three.
    steps = int(clean.mask[1].sum()) * clean.fbank.size(1) // clean.mask.size(1)
    assert not changed[1, steps:].any() and changed[1, :steps].any() and changed[0, steps:].any()


def test_the_momentum_tower_sees_the_clip_whole(tiny_model: Any, tiny_batch: Any) -> None:
    batch = tiny_batch()
    queues = []
    for options in ({}, {"spec_augment": OPTIONS}):
        criterion = MocoAtcAtm(
            tiny_model(**options), MocoAtcAtmConfig(atm_start=0, queue_size=8)
        ).train()
        torch.manual_seed(0)
        losses = criterion(**batch)
        queues.append((criterion.audio_queue.valid[0].clone(), float(losses["loss"].detach())))
    assert torch.equal(queues[0][0], queues[1][0])
    assert queues[0][1] != queues[1][1]


def test_it_needs_an_encoder_with_features() -> None:
    class Plain(torch.nn.Module):
        width, sample_rate = 4, 16_000

    AudioTower(Plain(), 8, "mean")
    with pytest.raises(ValueError, match=r"`model.spec_augment` masks features, but Plain has no"):
        AudioTower(Plain(), 8, "mean", CONFIG)


class Doubles(torch.nn.Module):
    """An encoder whose features are a tensor, as waveforms are."""

    width, sample_rate = 4, 32_000

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return 2 * waveforms

    def forward(self, *, features: Tensor) -> AudioTokens:
        states = features[:, :, None] ** torch.arange(4)
        return AudioTokens(states, torch.ones(features.shape, dtype=torch.bool))


def test_features_that_are_a_tensor_are_made_once() -> None:
    tower = AudioTower(Doubles(), 8, "mean")
    waveforms = torch.rand(2, 6)
    tokens = tower(waveforms)[1]
    assert torch.equal(tokens.states[:, :, 1], 2 * waveforms)
    # As a criterion does, for the tower and its momentum copy.
    assert torch.equal(tower(**tower.prepare(waveforms))[1].states, tokens.states)


def test_features_that_cannot_be_masked_are_refused() -> None:
    tower = AudioTower(Doubles(), 8, "mean", CONFIG)
    tower.eval()(torch.rand(2, 6))
    with pytest.raises(InputError, match="named tuple with `fbank` and `mask`, but .* a Tensor"):
        tower.train()(torch.rand(2, 6))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time_masks": -1}, "`time_masks` is -1, expected 0 or more"),
        ({"time_fraction": 1.5}, "`time_fraction` is 1.5, expected 0 to 1"),
        ({"freq_width": "wide"}, r"`model.spec_augment.freq_width` is 'wide'"),
        ({"freq_bins": 3}, "freq_bins"),
    ],
)
def test_wrong_options_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_config({"spec_augment": values})
    assert model_config({"spec_augment": {"time_masks": 1}}).spec_augment.time_masks == 1
