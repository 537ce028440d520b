from __future__ import annotations

import numpy as np
import pytest
from toy_listener import oracle_r_sum, truth

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.toy import (
    LOUDNESS_DB,
    PITCH_FACTORS,
    ToyConfig,
    open_toy,
    render,
)
from atr_moco_plugin.data.sets.toy_captions import Event, Scene
from atr_moco_plugin.data.summary import shared_captions
from atr_moco_plugin.errors import InputError

READER = AudioReader(16_000)

SMALL = ToyConfig(num_train=30, num_valid=10, num_test=10)


@pytest.fixture(scope="module")
def full() -> AudioTextDataset:
    return open_toy()


def test_the_default_splits(full: AudioTextDataset) -> None:
    sizes = {name: len(clips) for name, clips in full.splits.items()}
    assert sizes == {"train": 1500, "valid": 200, "test": 200}
    assert all(len(clip.captions) == 5 for clips in full.splits.values() for clip in clips)
    assert full.name == "toy"


def test_a_clip_depends_on_seed_and_key_alone(full: AudioTextDataset) -> None:
    small = open_toy(SMALL)
    for split in full.splits:
        assert small.clips(split) == full.clips(split)[: len(small.clips(split))]
    clip = full.clips("train")[7]
    first = full.read_with(READER).load(clip)
    full.read_with(READER).load(full.clips("train")[8])
    np.testing.assert_array_equal(first, full.read_with(READER).load(clip))
    np.testing.assert_array_equal(first, small.read_with(READER).load(small.clips("train")[7]))


def test_another_seed_is_another_data_set() -> None:
    one, two = open_toy(SMALL), open_toy(ToyConfig(1, 30, 10, 10))
    assert one.fingerprint() != two.fingerprint()
    assert one.clip_id(one.clips("test")[0]) != two.clip_id(two.clips("test")[0])


def test_the_content_is_fixed(full: AudioTextDataset) -> None:
    # The README's figures are of this content; change them together.
    assert full.fingerprint() == "822e82f5a75ce17d39db6370849b991a"


def test_audio_is_16_bit_mono_of_four_seconds_and_never_clips(full: AudioTextDataset) -> None:
    for clip in full.clips("valid")[:60]:
        wave = full.read_with(READER).load(clip)
        assert wave.shape == (64000,) and wave.dtype == np.float32
        steps = wave * 32768
        np.testing.assert_array_equal(steps, np.rint(steps))
        assert 0.05 < np.abs(wave).max() < 0.999


def test_descriptions_are_many_to_one(full: AudioTextDataset) -> None:
    shared, total = shared_captions(full.clips("train"))
    assert total == 7500 and 0.05 < shared / total < 0.2
    scenes = [clip.source for clip in full.clips("train")]
    assert len(set(scenes)) < 0.9 * len(scenes)


def test_a_perfect_listener_can_retrieve_the_held_out_clips(full: AudioTextDataset) -> None:
    for split in ("valid", "test"):
        ceiling = oracle_r_sum(truth(full, split))
        assert 540 < ceiling["random"] < ceiling["optimistic"] == 600
        assert 480 < ceiling["pessimistic"] < ceiling["random"]


def test_the_oracle_agrees_with_drawn_ties() -> None:
    data = open_toy(ToyConfig(num_train=1, num_valid=1, num_test=60, popular_share=0.8))
    fits = truth(data, "test").astype(float)
    captions = np.arange(fits.shape[1])
    owner = captions // 5
    rng = np.random.default_rng(0)
    sums = []
    for _ in range(300):
        score = fits + 0.5 * rng.random(fits.shape)
        to_audio = (score > score[owner, captions]).sum(axis=0)
        best = np.where(owner == np.arange(60)[:, None], score, -1).max(axis=1, keepdims=True)
        to_text = (score > best).sum(axis=1)
        sums.append(sum(100 * np.mean(r < k) for r in (to_audio, to_text) for k in (1, 5, 10)))
    assert oracle_r_sum(fits > 0)["random"] == pytest.approx(np.mean(sums), abs=1.5)


def power(wave: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.rfft(wave)) ** 2


def one(sound: str, pitch: int, loudness: int, seed: int = 0) -> np.ndarray:
    return render(Scene("alone", (Event(sound, pitch, loudness),)), seed)


@pytest.mark.parametrize("sound", ["siren", "bell", "whistle", "rain", "wind", "bird", "tap"])
def test_pitch_words_are_audible(sound: str) -> None:
    def center(wave: np.ndarray) -> float:
        spectrum = power(wave)
        log_frequency = np.log2(np.fft.rfftfreq(wave.size, 1 / 16000)[1:])
        return float((spectrum[1:] * log_frequency).sum() / spectrum[1:].sum())

    low, middle, high = (center(one(sound, pitch, 1)) for pitch in range(3))
    step = np.log2(PITCH_FACTORS[2] / PITCH_FACTORS[1])
    assert 0.6 * step < middle - low and 0.6 * step < high - middle


def test_loudness_words_are_audible() -> None:
    quiet, loud = (np.abs(one("whistle", 1, loudness, seed=3)).max() for loudness in (0, 1))
    difference = 20 * np.log10(loud / quiet)
    assert difference == pytest.approx(LOUDNESS_DB[1] - LOUDNESS_DB[0], abs=0.3)


def test_then_is_in_order_and_while_overlaps() -> None:
    def active(wave: np.ndarray, low: float, high: float) -> np.ndarray:
        """Samples at which a band is active."""
        spectrum = np.fft.rfft(wave)
        frequency = np.fft.rfftfreq(wave.size, 1 / 16000)
        spectrum[(frequency < low) | (frequency > high)] = 0
        return np.flatnonzero(np.abs(np.fft.irfft(spectrum, wave.size)) > 0.05)

    events = (Event("whistle", 1, 1), Event("wind", 1, 1))
    for seed in range(5):
        wave = render(Scene("then", events), seed)
        whistle, wind = active(wave, 1300, 1700), active(wave, 200, 900)
        assert whistle.max() < wind.min()
        wave = render(Scene("while", events), seed)
        whistle, wind = active(wave, 1300, 1700), active(wave, 200, 900)
        assert max(whistle.min(), wind.min()) + 8000 < min(whistle.max(), wind.max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"popular_share": 18}, "`popular_share` is 18, expected 0 to 1"),
        ({"single_share": -1}, "`single_share` is -1, expected 0 to 1"),
        ({"popular_scenes": 0}, "`popular_scenes` is 0, expected 1 or more"),
        ({"popular_scenes": -1, "popular_share": 0}, "`popular_scenes` is -1, expected 0 or more"),
        ({"num_train": -5}, "`num_train` is -5, expected 0 or more"),
        ({"num_test": 1.5}, "`num_test` is 1.5, expected int"),
        ({"num_train": 0, "num_valid": 0, "num_test": 0}, "are 0, expected clips in one of them"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ToyConfig(**options)  # type: ignore[arg-type]


def test_no_pool_is_needed_where_no_scene_is_drawn_from_it() -> None:
    sizes = {"num_train": 4, "num_valid": 0, "num_test": 0}
    none = open_toy(ToyConfig(popular_share=0, popular_scenes=0, **sizes))
    some = open_toy(ToyConfig(popular_share=0, popular_scenes=24, **sizes))
    assert none.clips("train") == some.clips("train")
