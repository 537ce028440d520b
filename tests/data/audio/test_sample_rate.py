"""Audio is read at the rate of the model that asks, resampled once from the file's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atr_moco_plugin.data.audio.read import (
    MIN_SECONDS,
    fit_length,
    read_audio,
    resampled_length,
    too_short,
)
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.evaluation_audio import iterate_audio
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy

RATES = [8_000, 11_025, 16_000, 22_050, 22_051, 32_000, 44_100, 48_000]


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[len(item)] for item in texts])
    return ids, ids > 0


def files(folder: Path, rates: list[int], seconds: float = 0.6, **options: object) -> Path:
    """A manifest of white noise, one file at each of ``rates``."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k, rate in enumerate(rates):
        wave = rng.uniform(-0.5, 0.5, round(rate * seconds))
        soundfile.write(folder / f"{k}.wav", wave, rate, subtype="FLOAT")
    rows = "".join(f"{k}.wav,noise {k}\n" for k in range(len(rates)))
    (folder / "train.csv").write_text("file_name,caption\n" + rows)
    return folder


def share_above(wave: np.ndarray, rate: int, hertz: float) -> float:
    power = np.abs(np.fft.rfft(wave.astype(np.float64))) ** 2
    return float(power[np.fft.rfftfreq(len(wave), 1 / rate) > hertz].sum() / power.sum())


def test_noise_keeps_its_upper_bands_for_an_encoder_of_its_rate(tmp_path: Path) -> None:
    data = open_manifest(ManifestConfig(root=files(tmp_path, [48_000] * 2)))
    data.read_with(AudioReader(48_000))
    options = {"max_seconds": 0.5, "shuffle": True, "seed": 0, "drop_last": True}
    (batch,) = PairLoader(data, "train", tokenize, 2, **options)
    assert batch.waveforms.shape == (2, 24_000)
    for wave in batch.waveforms.numpy():  # 16 of 24 kHz
        assert share_above(wave, 48_000, 8_000) == pytest.approx(2 / 3, abs=0.02)
    (evaluated,) = (waves for waves, _ in iterate_audio(data, data.clips("train"), 2, 0.5))
    assert share_above(evaluated[0].numpy(), 48_000, 8_000) == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("sample_rate", [16_000, 32_000, 48_000])
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_file_is_resampled_once(tmp_path: Path, rate: int, sample_rate: int) -> None:
    files(tmp_path, [rate])
    wave, _ = soundfile.read(tmp_path / "0.wav", dtype="float32")
    expected = soxr.resample(wave, rate, sample_rate, quality="HQ")
    np.testing.assert_array_equal(read_audio(tmp_path / "0.wav", sample_rate), expected)


@settings(deadline=None, max_examples=60)
@example(rate=48_000, sample_rate=11_025, seconds=0.5, share=0.5, seed=0)  # 5,512.5 samples
@given(
    rate=st.one_of(st.sampled_from(RATES), st.integers(4_000, 60_000)),
    sample_rate=st.one_of(st.sampled_from(RATES), st.integers(4_000, 60_000)),
    seconds=st.floats(0.4, 1.5),
    share=st.floats(0.5, 1.0),
    seed=st.integers(0, 9),
)
def test_a_crop_is_that_of_the_whole_file_for_any_two_rates(
    tmp_path_factory: pytest.TempPathFactory,
    rate: int,
    sample_rate: int,
    seconds: float,
    share: float,
    seed: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "crop.wav"
    wave = np.random.default_rng(seed).uniform(-0.5, 0.5, round(rate * seconds))
    soundfile.write(path, wave, rate, subtype="FLOAT")
    whole = read_audio(path, sample_rate)
    samples = max(1, round(len(whole) * share))
    for generator in (None, seed):
        crops = [
            cut(None if generator is None else torch.Generator().manual_seed(generator))
            for cut in (
                lambda drawn: read_audio(path, sample_rate, samples, drawn),
                lambda drawn: fit_length(whole, samples, drawn),
            )
        ]
        assert crops[0].shape == crops[1].shape
        np.testing.assert_allclose(crops[0], crops[1], atol=1e-5)


@given(st.integers(1, 10_000), st.sampled_from(RATES), st.sampled_from(RATES))
def test_what_is_long_enough_stays_so(frames: int, rate: int, sample_rate: int) -> None:
    assert too_short(frames, rate) == (frames / rate < MIN_SECONDS)
    if not too_short(frames, rate):
        assert resampled_length(frames, rate, sample_rate) >= int(MIN_SECONDS * sample_rate)
        assert resampled_length(frames, rate, 16_000) >= 2_800  # one patch of BEATs


def test_nothing_is_read_before_a_rate_is_said(tmp_path: Path) -> None:
    for data in (open_toy(ToyConfig(num_train=2, num_valid=1, num_test=1)),
                 open_manifest(ManifestConfig(root=files(tmp_path, [16_000])))):  # fmt: skip
        clip = data.clips("train")[0]
        for act in (
            lambda data=data, clip=clip: data.load(clip),
            lambda data=data: data.sample_rate,
            lambda data=data, clip=clip: list(iterate_audio(data, [clip], 1, 1.0)),
            lambda data=data: PairLoader(
                data, "train", tokenize, 1, max_seconds=1, shuffle=True, seed=0, drop_last=True
            ),
        ):
            with pytest.raises(ValueError, match="nobody has said at which sampling rate"):
                act()


def test_two_models_of_different_rates_do_not_share_an_open_data_set() -> None:
    data = open_toy(ToyConfig(num_train=1, num_valid=1, num_test=1))
    data.read_with(AudioReader(16_000)).read_with(AudioReader(16_000))
    with pytest.raises(ValueError, match="toy is read at 16000 Hz already, not at 32000 Hz"):
        data.read_with(AudioReader(32_000))
    assert data.sample_rate == 16_000


@pytest.mark.parametrize("sample_rate", [None, 0, 999, 16_000.0, True, "16000", 10**6])
def test_what_is_no_rate_is_refused(sample_rate: object) -> None:
    with pytest.raises(
        ValueError,
        match="`sample_rate` (of an AudioReader is .*whole number of Hz|is .*expected int)",
    ):
        AudioReader(sample_rate)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`sample_rate` of `read` of the data set 'd' is"):
        AudioTextDataset(
            "d",
            {"train": [Clip("a", ("a",), None)]},
            read=lambda _: np.zeros(4_000, np.float32),
            read_rate=sample_rate,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("cache", [False, True])
def test_rendered_clips_are_resampled_once_from_their_own_rate(cache: bool) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 22_050).astype(np.float32)
    data = AudioTextDataset(
        "d", {"train": [Clip("a", ("a",), None)]}, read=lambda _: wave, read_rate=22_050,
        cache=cache,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="1 of 1 clips have a lower sampling rate"):
        data.read_with(AudioReader(48_000))
    expected = soxr.resample(wave, 22_050, 48_000, quality="HQ")
    for _ in range(2):
        np.testing.assert_array_equal(data.load(data.clips("train")[0]), expected)
        np.testing.assert_array_equal(data.load(data.clips("train")[0], 100), expected[:100])


def test_files_of_a_lower_rate_than_the_models_are_warned_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = files(tmp_path, [16_000, 44_100, 16_000, 22_050, 32_000])
    open_manifest(ManifestConfig(root=folder)).read_with(AudioReader(22_050))
    assert not recwarn.list  # 2 of 5
    nearly = files(tmp_path / "nearly", [44_100] * 3)
    open_manifest(ManifestConfig(root=nearly)).read_with(AudioReader(48_000))
    assert not recwarn.list
    data = open_manifest(ManifestConfig(root=folder)).read_with(AudioReader(32_000))
    data.read_with(AudioReader(32_000, cache_dir=tmp_path / "cache"))
    (warning,) = recwarn.list
    assert "3 of 5 clips have a lower sampling rate than the model's 32000 Hz (most 16000" in str(
        warning.message
    )


def test_a_run_is_not_resumed_at_another_rate(tmp_path: Path) -> None:
    def loader(sample_rate: int) -> PairLoader:
        data = open_manifest(ManifestConfig(root=folder)).read_with(AudioReader(sample_rate))
        options = {"max_seconds": 0.5, "shuffle": True, "seed": 0, "drop_last": True}
        return PairLoader(data, "train", tokenize, 2, **options)

    folder = files(tmp_path, [48_000] * 4)
    state = loader(32_000).state_dict()
    loader(32_000).load_state_dict(state)
    with pytest.raises(ValueError, match="sample_rate was 32000 and is 48000\\); resume with"):
        loader(48_000).load_state_dict(state)
    # Runs of versions that knew one rate alone.
    del state["settings"]["sample_rate"]
    loader(16_000).load_state_dict(state)
    with pytest.raises(ValueError, match="sample_rate was 16000 and is 32000"):
        loader(32_000).load_state_dict(state)


def test_the_cache_keeps_a_clip_for_each_rate(tmp_path: Path) -> None:
    files(tmp_path, [48_000])
    source = tmp_path / "0.wav"
    for sample_rate in (16_000, 48_000, 16_000):
        cached = AudioReader(sample_rate, cache_dir=tmp_path / "cache")
        exact = AudioReader(sample_rate)
        assert cached(source).shape == exact(source).shape == (round(0.6 * sample_rate),)
        np.testing.assert_allclose(cached(source), exact(source), atol=2**-15)
        crops = [r(source, 3_000, torch.Generator().manual_seed(1)) for r in (cached, exact)]
        np.testing.assert_allclose(*crops, atol=2**-15)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2
