from __future__ import annotations

import errno
import logging
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atr_moco_plugin.data.audio import cache, reader
from atr_moco_plugin.data.audio.cache import entry_path, pack, read_entry, unpack, write_entry
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.audio.scale import MAX_PEAK
from atr_moco_plugin.data.audio.source import FileSlice
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.evaluation_audio import iterate_audio
from atr_moco_plugin.data.loading.loader import PairLoader


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[len(item)] for item in texts])
    return ids, ids > 0


def write(path: Path, k: int = 0, rate: int = 44_100, seconds: float = 1.0) -> Path:
    rng = np.random.default_rng(k)
    soundfile.write(path, rng.uniform(-0.5, 0.5, (int(rate * seconds), 2)), rate)
    return path


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@settings(deadline=None)
@given(
    arrays(np.float32, st.integers(1, 30), elements=st.floats(-2, 2, width=32)),
    st.booleans(),
)
def test_packing_is_exact_or_rounds_to_16_bits(wave: np.ndarray, exact: bool) -> None:
    back = unpack(pack(wave, exact=exact))
    assert back.dtype == np.float32
    if exact:
        np.testing.assert_array_equal(back, wave)
    else:
        assert np.abs(back - wave).max() <= 2**-16


def test_a_hit_gives_what_the_miss_gave_and_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "a.wav")
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    plain = AudioReader(16_000)
    miss = cached(one)
    assert miss.dtype == np.float32 and np.abs(miss - plain(one)).max() <= 2**-16
    (entry,) = entries(tmp_path / "cache")
    assert np.load(entry).dtype == np.int16

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("decoded again")

    crops = [plain(one, 4000, torch.Generator().manual_seed(seed)) for seed in range(5)]
    monkeypatch.setattr(reader, "read_audio", refuse)
    np.testing.assert_array_equal(cached(one), miss)
    for seed, expected in enumerate(crops):
        crop = cached(one, 4000, torch.Generator().manual_seed(seed))
        assert crop.shape == (4000,) and crop.flags.writeable
        assert np.abs(crop - expected).max() <= 2**-16 + 1e-6
    np.testing.assert_array_equal(cached(one, 4000), miss[:4000])
    np.testing.assert_array_equal(cached(one, 10**6), miss)


def test_beyond_full_scale_nothing_is_clipped(tmp_path: Path) -> None:
    wave = np.linspace(-3, 3, 4000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(cached(tmp_path / "a.wav"), wave)


DAMAGES = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "header only": lambda data: data[:60],
    "other": lambda data: b"<html>" * 100,
    "of objects": lambda data: data.replace(b"<i2", b"|O "),
    "of unsigned integers": lambda data: data.replace(b"'<i2'", b"'<u2'"),
    "of doubles": lambda data: data.replace(b"'<i2'", b"'<f8'"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_entry_is_made_anew(tmp_path: Path, kind: str) -> None:
    one = write(tmp_path / "a.wav")
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    wave = cached(one)
    (entry,) = entries(tmp_path / "cache")
    good = entry.read_bytes()
    entry.write_bytes(DAMAGES[kind](good))
    assert entry.read_bytes() != good
    np.testing.assert_array_equal(cached(one), wave)
    assert entry.read_bytes() == good and entries(tmp_path / "cache") == [entry]


def test_a_file_that_changes_is_decoded_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 0)
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    first = cached(path)
    write(path, 1)
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(cached(path), first)


def test_another_file_of_its_size_and_time_is_decoded(tmp_path: Path) -> None:
    """As two releases of an archive have whose times are all one."""
    path = write(tmp_path / "a.wav", 0)
    os.utime(path, ns=(1, 1))
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    first = cached(path)
    size = path.stat().st_size
    write(path, 1)
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size == size
    assert not np.array_equal(cached(path), first)


def test_entries_tell_files_parts_and_decoders_apart(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.wav"), write(tmp_path / "b.wav")
    sources = [a, b, FileSlice(a, 0, 10, "x"), FileSlice(a, 1, 10, "x"), FileSlice(a, 0, 11, "x")]
    paths = {entry_path(tmp_path, source, "soundfile") for source in sources}
    paths.add(entry_path(tmp_path, a, "torchcodec"))
    assert len(paths) == 6
    assert entry_path(tmp_path, str(a), "soundfile") == entry_path(tmp_path, a, "soundfile")
    with pytest.raises(FileNotFoundError, match="c.wav: no such audio file"):
        entry_path(tmp_path, tmp_path / "c.wav")


def test_an_unreadable_clip_leaves_no_entry(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no audio")
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(ValueError, match="not readable as audio"):
            cached(tmp_path / "a.wav")
    assert not (tmp_path / "cache").exists()


def test_integers_that_an_earlier_release_has_kept_are_refused(tmp_path: Path) -> None:
    wave = np.linspace(-9e3, 9e3, 4000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    write_entry(entry_path(tmp_path / "cache", tmp_path / "a.wav", "soundfile", "16000"), wave)
    for samples in (None, 1000):
        with pytest.raises(ValueError, match=r"a\.wav: it has float samples up to 9,000, where"):
            cached(tmp_path / "a.wav", samples)


def test_a_loud_file_that_overshoots_when_resampled_is_kept(tmp_path: Path) -> None:
    """It was read without a cache, and refused with one."""
    square = np.repeat(np.resize([30.0, -30.0], 100), 40).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", square, 8_000, subtype="FLOAT")
    plain = AudioReader(16_000)(tmp_path / "a.wav")
    assert np.abs(plain).max() > MAX_PEAK
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(cached(tmp_path / "a.wav"), plain)


def test_a_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    one, two = write(tmp_path / "a.wav"), write(tmp_path / "b.wav", 1)
    with caplog.at_level(logging.WARNING):
        waves = [cached(item) for item in (one, two, one)]
    np.testing.assert_array_equal(waves[0], waves[2])
    assert len(caplog.records) == 1
    assert "decoded audio cannot be kept there" in caplog.text


def test_a_disk_that_fills_up_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object, array: np.ndarray) -> None:
        file.write(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    one = write(tmp_path / "a.wav")
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(cached(one), cached(one))
    assert entries(tmp_path / "cache") == [] and len(caplog.records) == 1
    assert "(No space left on device); go on without" in caplog.text


def test_entries_are_as_readable_as_other_files(tmp_path: Path) -> None:
    AudioReader(16_000, cache_dir=tmp_path / "cache")(write(tmp_path / "a.wav"))
    (entry,) = entries(tmp_path / "cache")
    assert entry.stat().st_mode == (tmp_path / "a.wav").stat().st_mode


def test_read_with_changes_the_reader_of_files_and_leaves_renderers_alone(tmp_path: Path) -> None:
    one = Clip("a", ("a",), write(tmp_path / "a.wav"))
    cached = AudioReader(16_000, cache_dir=tmp_path / "cache")
    files = AudioTextDataset("d", {"train": [one]})
    files.read_with(cached)
    np.testing.assert_array_equal(files.load(one, 100), cached(one.source)[:100])
    assert len(entries(tmp_path / "cache")) == 1
    rendered = AudioTextDataset(
        "d", {"train": [one]}, read=lambda _: np.ones(4000, np.float32), read_rate=16_000
    )
    rendered.read_with(cached)
    np.testing.assert_array_equal(rendered.load(one, 100), np.ones(100))


def _load_all(arguments: tuple[Path, list[Path]]) -> list[bytes]:
    folder, paths = arguments
    cached = AudioReader(16_000, cache_dir=folder)
    return [cached(path).tobytes() for path in paths]


@pytest.mark.slow  # processes are spawned
def test_processes_and_threads_share_one_folder(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.wav", k, seconds=0.5) for k in range(6)]
    expected = _load_all((tmp_path / "alone", paths))
    jobs = [(tmp_path / "cache", paths)] * 4
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_load_all, jobs)
    with ThreadPoolExecutor(4) as threads:
        results += threads.map(_load_all, jobs)
    assert all(result == expected for result in results)
    found = entries(tmp_path / "cache")
    assert len(found) == 6 and all(read_entry(path) is not None for path in found)


def test_batches_are_the_same_cold_warm_and_with_workers(tmp_path: Path) -> None:
    rows = [Clip(str(k), ("a",), write(tmp_path / f"{k}.wav", k)) for k in range(6)]
    epochs = []
    for workers in (2, 0, 2):
        data = AudioTextDataset("d", {"train": rows})
        data.read_with(AudioReader(16_000, cache_dir=tmp_path / "cache"))
        loader = PairLoader(
            data, "train", tokenize, 2, max_seconds=0.4, shuffle=True, seed=3, drop_last=True,
            num_workers=workers,
        )  # fmt: skip
        epochs.append([batch.waveforms for batch in loader])
        waves = [waveforms for waveforms, _ in iterate_audio(data, rows, 4, 0.4, workers)]
        epochs[-1] += waves
    assert len(entries(tmp_path / "cache")) == 6
    for other in epochs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(epochs[0], other, strict=True))
