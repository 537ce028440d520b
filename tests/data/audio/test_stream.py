"""Long recordings in windows: equal to windows of the whole file, in bounded memory."""

from __future__ import annotations

import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.data.audio.source import MemoryFile, Segment
from atr_moco_plugin.data.audio.stream import cut_windows, read_windows
from atr_moco_plugin.errors import InputError


def slow_starts(total: int, size: int, hop: int) -> list[int]:
    """Starts of the windows, from what the docstring says."""
    if total <= size:
        return [0] if total else []
    inside = [start for start in range(0, total, hop) if start + size <= total]
    return inside if inside[-1] + size == total else [*inside, total - size]


@given(
    total=st.integers(0, 60),
    size=st.integers(1, 25),
    hop=st.integers(1, 25),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_windows_of_any_blocks(total: int, size: int, hop: int, cuts: list[int]) -> None:
    hop = min(hop, size)
    whole = np.arange(total, dtype=np.float32)
    blocks = np.split(whole, sorted(min(cut, total) for cut in cuts))
    found = list(cut_windows(blocks, 10, size, hop))
    expected = slow_starts(total, size, hop)
    assert [round(window.start * 10) for window in found] == expected
    for window, start in zip(found, expected, strict=True):
        assert np.array_equal(window.waveform, whole[start : start + size])
        assert window.end == pytest.approx(window.start + len(window.waveform) / 10)


def noise(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    shape = (round(seconds * rate), channels)
    return (generator.standard_normal(shape) * 0.1).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("a.wav", 16_000, 1),
        ("a.wav", 44_100, 2),
        ("a.wav", 8_000, 1),
        ("a.flac", 48_000, 2),
        ("a.ogg", 22_050, 1),
        ("a.mp3", 44_100, 2),
    ],
)
def test_windows_are_those_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rate: int, channels: int
) -> None:
    """Decoded in small blocks, so that a file of some seconds has many."""
    monkeypatch.setattr("atr_moco_plugin.data.audio.decode._BLOCK", 7_001)
    soundfile.write(tmp_path / name, noise(5.3, rate, channels), rate)
    whole = read_audio(tmp_path / name, 16_000)
    windows = list(read_windows(tmp_path / name, 16_000, 16_000, 8_000))
    starts = slow_starts(len(whole), 16_000, 8_000)
    assert len(windows) == len(starts) > 8
    for window, start in zip(windows, starts, strict=True):
        assert window.start == start / 16_000
        np.testing.assert_allclose(window.waveform, whole[start : start + 16_000], atol=1e-6)


def test_parts_of_files_and_files_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, noise(4.0, 16_000), 16_000)
    segment = Segment(str(file), 0.5, 3.0)
    memory = MemoryFile(file.read_bytes(), "a.wav in memory")
    for source in (segment, memory):
        whole = read_audio(source, 16_000)
        windows = list(read_windows(source, 16_000, 16_000, 16_000))
        assert np.array_equal(windows[0].waveform, whole[:16_000])
        assert np.array_equal(windows[-1].waveform, whole[-16_000:])


def test_what_is_too_short_or_cut_off_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", noise(0.1, 16_000), 16_000)
    with pytest.raises(InputError, match=r"short.wav: lasts 0.100 s, at least 0.175 s is needed"):
        list(read_windows(tmp_path / "short.wav", 16_000, 16_000, 16_000))
    soundfile.write(tmp_path / "cut.flac", noise(3.0, 16_000), 16_000)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut.flac: is truncated"):
        list(read_windows(tmp_path / "cut.flac", 16_000, 16_000, 16_000))


def test_ten_hours_take_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    """A file with a hole: its ten hours of silence take no room on disk."""
    file = tmp_path / "long.wav"
    seconds = 36_000
    with wave.open(str(file), "wb") as header:
        header.setparams((1, 2, 2_000, 0, "NONE", ""))
        header.setnframes(seconds * 2_000)
        header.writeframes(b"\0\0")
    with file.open("r+b") as stream:
        stream.seek(4)
        stream.write((36 + seconds * 4_000).to_bytes(4, "little"))
        stream.seek(40)
        stream.write((seconds * 4_000).to_bytes(4, "little"))
        stream.truncate(44 + seconds * 4_000)
    tracemalloc.start()
    try:
        ends = [window.end for window in read_windows(file, 2_000, 20_000, 20_000)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(ends), ends[-1]) == (3_600, seconds)
    assert peak < 40e6
