"""Cutting what one hears of a hit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.serving.sounds import MAX_SECONDS, Cut, around, read_cut, to_wav


@given(start=st.floats(0, 1e5), length=st.floats(0.2, 200), rest=st.floats(0, 1e4))
def test_a_cut_holds_its_window_as_far_as_it_may(start: float, length: float, rest: float) -> None:
    end = start + length
    cut = around(start, end, end + rest)
    assert 0 <= cut.start <= start < cut.end <= end + rest
    assert cut.end - cut.start <= MAX_SECONDS + 1e-6
    assert cut.end >= min(end, cut.start + MAX_SECONDS)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_cut_is_that_part_of_the_recording(tmp_path: Path, suffix: str) -> None:
    time = np.arange(3 * 16_000) / 16_000
    sound = np.where((time >= 1) & (time < 2), 0.5 * np.sin(2 * np.pi * 440 * time), 0)
    soundfile.write(tmp_path / f"a.{suffix}", sound, 16_000)
    frames, rate = read_cut(str(tmp_path / f"a.{suffix}"), Cut(0.9, 2.1))
    assert frames.shape == (round(1.2 * rate), 1) and rate == 16_000
    expected = sound[14_400:33_600]
    assert np.abs(frames[:, 0] - expected).mean() < 0.01


def test_a_cut_of_a_segment_counts_from_its_start(tmp_path: Path) -> None:
    ramp = np.linspace(0, 0.9, 8_000)
    soundfile.write(tmp_path / "a.wav", ramp, 1_000 * 8, subtype="FLOAT")
    frames, _ = read_cut(Segment(str(tmp_path / "a.wav"), 0.5, 1.0), Cut(0.25, 9.0))
    np.testing.assert_allclose(frames[:, 0], ramp[6_000:], atol=1e-6)


@pytest.mark.parametrize(
    ("rate", "channels", "shape"),
    [(44_100, 2, (44_100, 2)), (16_000, 6, (16_000, 1)), (250_000, 1, (48_000, 1))],
)
def test_what_browsers_do_not_play_is_made_so(
    tmp_path: Path, rate: int, channels: int, shape: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).normal(size=(rate, channels)) * 0.1
    soundfile.write(tmp_path / "a.wav", noise, rate)
    frames, out = read_cut(str(tmp_path / "a.wav"), Cut(0, 1))
    assert frames.shape == shape and out == shape[0]
    again, _ = soundfile.read(io.BytesIO(to_wav(frames, out)), always_2d=True)
    np.testing.assert_allclose(again, frames, atol=1e-4)


def test_a_float_file_beyond_full_scale_is_made_quieter_not_cut(tmp_path: Path) -> None:
    loud = 4 * np.sin(np.arange(16_000) / 5)
    loud[7] = np.nan
    soundfile.write(tmp_path / "a.wav", loud, 16_000, subtype="FLOAT")
    frames, _ = read_cut(str(tmp_path / "a.wav"), Cut(0, 1))
    assert np.abs(frames).max() == pytest.approx(1) and np.isfinite(frames).all()
    np.testing.assert_allclose(frames[8:, 0], loud[8:] / np.nanmax(np.abs(loud)), atol=1e-5)


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(InputError, match="not readable as audio"):
        read_cut(str(tmp_path / "a.wav"), Cut(0, 1))
    with pytest.raises(FileNotFoundError):
        read_cut(str(tmp_path / "b.wav"), Cut(0, 1))
    soundfile.write(tmp_path / "c.wav", np.zeros(16_000), 16_000)
    with pytest.raises(InputError, match=r"ends before 2\.0 s"):
        read_cut(str(tmp_path / "c.wav"), Cut(2, 3))
