from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atr_moco_plugin.data.audio import decode
from atr_moco_plugin.data.audio.read import (
    MIN_SECONDS,
    fit_length,
    read_audio,
    resample,
    resampled_length,
    window,
)
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.errors import InputError

SAMPLE_RATE = 16_000
MIN_SAMPLES = round(MIN_SECONDS * SAMPLE_RATE)


def sine(frequency: float, rate: int, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


def test_a_16_khz_mono_file_is_returned_exactly(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    read = read_audio(tmp_path / "a.wav", SAMPLE_RATE)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, wave)


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", 44100, "PCM_16"),
        ("a.wav", 48000, "PCM_24"),
        ("a.wav", 8000, "PCM_U8"),
        ("a.flac", 22050, "PCM_16"),
        ("a.ogg", 32000, "VORBIS"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_rate_channels_and_subtype(
    tmp_path: Path, name: str, rate: int, subtype: str, channels: int
) -> None:
    wave = sine(440, rate, 1.0)
    frames = np.stack([wave] * channels, axis=1)
    soundfile.write(tmp_path / name, frames, rate, subtype=subtype)
    read = read_audio(tmp_path / name, SAMPLE_RATE)
    assert read.dtype == np.float32 and read.ndim == 1
    assert read.shape == (SAMPLE_RATE,)
    inner = slice(1600, 14400)
    np.testing.assert_allclose(read[inner], sine(440, SAMPLE_RATE, 1.0)[inner], atol=0.03)


def test_channels_are_averaged(tmp_path: Path) -> None:
    frames = np.stack([np.full(4000, 0.5), np.full(4000, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", frames, SAMPLE_RATE, subtype="FLOAT")
    read = read_audio(tmp_path / "a.wav", SAMPLE_RATE)
    np.testing.assert_array_equal(read, np.full(4000, 0.125, np.float32))


def test_resampling_removes_what_16_khz_cannot_hold(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(12000, 48000, 1.0), 48000)
    assert np.abs(read_audio(tmp_path / "a.wav", SAMPLE_RATE)[1600:-1600]).max() < 0.01


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    wave = sine(440, SAMPLE_RATE, 0.5).astype(np.float32)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "truncated header":
        soundfile.write(path, wave, SAMPLE_RATE)
        path.write_bytes(path.read_bytes()[:20])
    elif kind in ("nan", "infinite"):
        wave[7] = np.nan if kind == "nan" else -np.inf
        soundfile.write(path, np.stack([wave, -wave], axis=1), SAMPLE_RATE, subtype="FLOAT")
    elif kind == "integers":
        soundfile.write(path, wave * 2**15, 44_100, subtype="FLOAT")
    elif kind == "truncated wav":
        soundfile.write(path, wave, SAMPLE_RATE)
        path.write_bytes(path.read_bytes()[:8000])
    elif kind == "truncated flac":
        path = path.with_suffix(".flac")
        soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 44_100), 44_100)
        path.write_bytes(path.read_bytes()[:-40_000])
    elif kind == "no length":
        path = path.with_suffix(".flac")
        soundfile.write(path, wave, SAMPLE_RATE)
        data = bytearray(path.read_bytes())
        data[21] &= 0xF0  # STREAMINFO: the total number of samples takes 36 bits from here
        data[22:26] = b"\0\0\0\0"
        path.write_bytes(data)
    elif kind == "a rate of 1 Hz":
        soundfile.write(path, wave, 1)
    elif kind == "no samples":
        soundfile.write(path, wave[:0], 44100)
    elif kind == "short":
        soundfile.write(path, wave[: MIN_SAMPLES - 1], SAMPLE_RATE)
    return path


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", FileNotFoundError, "no such audio file"),
        ("empty", ValueError, "the file is empty"),
        ("text", ValueError, "not readable as audio"),
        ("truncated header", ValueError, "not readable as audio"),
        ("nan", ValueError, "NaN or infinite"),
        ("infinite", ValueError, "NaN or infinite"),
        ("integers", InputError, "it has float samples up to 16,.*, where full scale is 1; divide"),
        ("truncated wav", ValueError, r"is truncated, 0.249 s of 0.500 s are there"),
        ("truncated flac", ValueError, r"is truncated, its header says 1.000 s"),
        ("no length", ValueError, "its header gives no length"),
        ("a rate of 1 Hz", ValueError, "sampling rate of 1 Hz, expected 1000 to 768000"),
        ("no samples", ValueError, "lasts 0.000 s"),
        ("short", ValueError, "at least 0.175 s"),
    ],
)
def test_bad_files_are_named_in_one_sentence(
    tmp_path: Path, kind: str, error: type[Exception], message: str
) -> None:
    path = bad_file(tmp_path, kind)
    # A crop of a damaged file is refused like the whole, wherever it lies.
    for samples in (None, MIN_SAMPLES):
        with pytest.raises(error, match=message) as caught:
            read_audio(path, SAMPLE_RATE, samples)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("peak", [1.5, 31.9, 28_391.0])
def test_integers_that_were_not_scaled_are_refused_in_any_part(tmp_path: Path, peak: float) -> None:
    wave = (sine(440, SAMPLE_RATE, 2.0) * 2 * peak).astype(np.float32)
    file = tmp_path / "a.wav"
    soundfile.write(file, wave, SAMPLE_RATE, subtype="FLOAT")
    generator = torch.Generator().manual_seed(0)
    sound = FileSlice(file, 0, file.stat().st_size, "a.wav")
    for source in (file, sound, Segment(str(file), 0.0, 1.0), Segment(str(file), 0.9, 2.0)):
        for samples, drawn in ((None, None), (8000, None), (8000, generator)):
            if peak < 32:
                assert np.abs(read_audio(source, SAMPLE_RATE, samples, drawn)).max() > 1
                continue
            with pytest.raises(InputError, match=r"a\.wav.*: it has float samples up to 28,3"):
                read_audio(source, SAMPLE_RATE, samples, drawn)


def test_the_shortest_clip_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(MIN_SAMPLES), SAMPLE_RATE)
    assert read_audio(tmp_path / "a.wav", SAMPLE_RATE).shape == (MIN_SAMPLES,)


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_a_wav_that_cannot_be_searched_is_read_from_its_beginning(
    tmp_path: Path, subtype: str
) -> None:
    """libsndfile cannot seek in them; such a file opened clean and failed in training."""
    soundfile.write(tmp_path / "a.wav", sine(300, 8000, 2.0), 8000, subtype=subtype)
    whole = read_audio(tmp_path / "a.wav", 8000)
    assert abs(len(whole) - 16000) < 1000
    np.testing.assert_allclose(whole[2000:14000], sine(300, 8000, 2.0)[2000:14000], atol=0.1)
    generator = torch.Generator().manual_seed(3)
    start, stop = window(len(whole), 4000, torch.Generator().manual_seed(3))
    crop = read_audio(tmp_path / "a.wav", 8000, 4000, generator)
    np.testing.assert_array_equal(crop, whole[start:stop])
    part = read_audio(Segment(str(tmp_path / "a.wav"), 0.5, 1.0), 8000)
    np.testing.assert_array_equal(part, whole[4000:8000])


def test_a_silent_clip_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros((44_100, 2)), 44_100)
    read = read_audio(tmp_path / "a.flac", SAMPLE_RATE)
    np.testing.assert_array_equal(read, np.zeros(SAMPLE_RATE))


def test_a_flac_that_is_damaged_in_the_middle_is_refused_or_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 160_000), SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    data[100_000:150_000] = b"\0" * 50_000
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.flac: is damaged after \d\.\d+ s"):
        read_audio(path, SAMPLE_RATE)


def test_a_few_samples_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16_000), SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[:-2_000])
    assert read_audio(path, SAMPLE_RATE).shape == (15_000,)


@pytest.mark.parametrize("size", [2**32 - 1, 2**31 - 1])
def test_a_wav_that_was_written_to_a_pipe_has_no_length_and_is_read(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8_000), SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert read_audio(path, SAMPLE_RATE).shape == (8_000,)
    assert read_audio(path, SAMPLE_RATE, 4_000).shape == (4_000,)


def test_of_a_truncated_ogg_what_is_there_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 96_000), 32_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read = read_audio(path, SAMPLE_RATE)
    assert 10_000 < read.shape[0] < 40_000 and np.abs(read).max() > 0.1


def test_an_ogg_that_lacks_its_middle_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 320_000), 32_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 5] + data[len(data) * 3 // 5 :])
    assert np.abs(read_audio(path, SAMPLE_RATE)).max() > 0.1


@pytest.mark.parametrize("suffix", ["aiff", "au", "w64", "rf64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_other_files_that_are_cut_off_are_refused(
    tmp_path: Path, suffix: str, subtype: str
) -> None:
    """A third of them was read without a word."""
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.tile(sine(440, SAMPLE_RATE, 3), (2, 1)).T, SAMPLE_RATE, subtype)
    assert decode.read_header(path) == (3 * SAMPLE_RATE, SAMPLE_RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(ValueError, match=rf"a.{suffix}: is truncated, \S+ s of (3.000|2.99\d) s"):
        decode.read_header(path)


@pytest.mark.parametrize("tag", [True, False])
def test_an_mp3_with_other_bytes_in_its_middle_is_one_sentence(tmp_path: Path, tag: bool) -> None:
    """soundfile's error, that no array has a negative size, ended runs."""
    path = tmp_path / "a.mp3"
    wave = np.random.default_rng(0).normal(0, 0.1, 160_000)
    soundfile.write(path, wave, SAMPLE_RATE, format="MP3")
    data = bytearray(path.read_bytes())
    if not tag:  # decoding has to tell
        place = next(data.find(name) for name in (b"Info", b"Xing") if name in data)
        data[place : place + 4] = b"none"
    first, last = int(0.4 * len(data)), int(0.6 * len(data))
    refused = set()
    for seed in range(6):
        data[first:last] = np.random.default_rng(seed).bytes(last - first)
        path.write_bytes(data)
        try:
            read_audio(path, SAMPLE_RATE)
        except InputError as error:
            assert str(error).startswith(f"{path}: is ")
            refused.add(str(error))
    assert refused


def test_a_part_of_a_file_is_read_like_a_file(tmp_path: Path) -> None:
    file = io.BytesIO()
    wave = np.rint(np.random.default_rng(0).uniform(-9000, 9000, 8_000)) / 32768
    soundfile.write(file, wave, SAMPLE_RATE, format="FLAC")
    data = file.getvalue()
    (tmp_path / "shard").write_bytes(b"before" + data + b"after")
    part = FileSlice(tmp_path / "shard", 6, len(data), "a.flac")
    np.testing.assert_array_equal(read_audio(part, SAMPLE_RATE), wave.astype(np.float32))
    crop = read_audio(part, SAMPLE_RATE, 3_000)
    np.testing.assert_array_equal(crop, wave[:3_000].astype(np.float32))
    with pytest.raises(ValueError, match="shard, member a.flac: .* bytes, more than"):
        read_audio(FileSlice(tmp_path / "shard", 0, 2**40, "a.flac"), SAMPLE_RATE)


CROPPED = [
    ("a.wav", 44_100, "PCM_16"),
    ("a.wav", 48_000, "FLOAT"),
    ("a.wav", 22_051, "PCM_16"),  # shares no factor with 16,000
    ("a.wav", 8_000, "ULAW"),
    ("a.wav", 16_000, "PCM_16"),
    ("a.wav", 22_050, "MS_ADPCM"),
    ("a.flac", 32_000, "PCM_16"),
    ("a.flac", 11_025, "PCM_24"),
    ("a.ogg", 44_100, "VORBIS"),
    ("a.mp3", 44_100, "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("name", "rate", "subtype"), CROPPED)
def test_a_crop_equals_that_of_the_whole_file(
    tmp_path: Path, name: str, rate: int, subtype: str
) -> None:
    path = tmp_path / name
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.5, 0.5, (int(rate * 4.0371), 2)), rate, subtype=subtype)
    whole = read_audio(path, SAMPLE_RATE)
    np.testing.assert_array_equal(read_audio(path, SAMPLE_RATE, whole.shape[0]), whole)
    for seed in range(6):
        samples = [3_000, 16_000, 40_001][seed % 3]
        for generator in (None, torch.Generator()):
            if generator is not None:
                generator.manual_seed(seed)
            crop = read_audio(path, SAMPLE_RATE, samples, generator)
            if generator is not None:
                generator.manual_seed(seed)
            expected = fit_length(whole, samples, generator)
            assert crop.shape == (samples,)
            np.testing.assert_allclose(crop, expected, atol=2e-5)


# In this clip libsndfile's seek gives other samples than decoding from the beginning.
RECORDING = Path(__file__).parents[4] / "shared/data/esc50-16k/audio/1-26806-A-1.ogg"


@pytest.mark.skipif(not RECORDING.is_file(), reason="the ESC-50 recordings are not here")
def test_a_crop_of_a_vorbis_recording_is_exact() -> None:
    whole = read_audio(RECORDING, SAMPLE_RATE)
    for seed in range(40):
        crop = read_audio(RECORDING, SAMPLE_RATE, 16_000, torch.Generator().manual_seed(seed))
        expected = fit_length(whole, 16_000, torch.Generator().manual_seed(seed))
        np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_crop_of_ten_minutes_decodes_seconds(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 48_000
    block = np.random.default_rng(0).integers(-3000, 3000, (60 * rate, 2), dtype=np.int16)
    with soundfile.SoundFile(tmp_path / name, "w", rate, 2, "PCM_16") as file:
        for _ in range(10):
            file.write(block)
    decoded = []
    average = decode.average

    def counted(frames: np.ndarray, source: object) -> np.ndarray:
        decoded.append(len(frames))
        return average(frames, source)

    monkeypatch.setattr(decode, "average", counted)
    # Of this process alone: the machine may be busy with others.
    start = time.process_time()
    crops = [
        read_audio(tmp_path / name, SAMPLE_RATE, 160_000, torch.Generator().manual_seed(k))
        for k in range(3)
    ]
    seconds = (time.process_time() - start) / 3
    assert 10 * rate <= sum(decoded) / 3 <= 10.2 * rate
    decoded.clear()
    beginning = read_audio(tmp_path / name, SAMPLE_RATE, 160_000)
    assert sum(decoded) <= 10.2 * rate
    start = time.process_time()
    whole = read_audio(tmp_path / name, SAMPLE_RATE)
    # A sixtieth is decoded.
    assert seconds < (time.process_time() - start) / 10
    for k, crop in enumerate(crops):
        expected = fit_length(whole, 160_000, torch.Generator().manual_seed(k))
        np.testing.assert_allclose(crop, expected, atol=2e-6)
    np.testing.assert_allclose(beginning, whole[:160_000], atol=2e-6)


def test_a_file_of_hours_is_cropped_but_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MAX_HOURS", 1 / 3600)
    soundfile.write(tmp_path / "a.wav", np.zeros(40_000), SAMPLE_RATE)
    assert read_audio(tmp_path / "a.wav", SAMPLE_RATE, 16_000).shape == (16_000,)
    with pytest.raises(ValueError, match="a.wav: lasts more than"):
        read_audio(tmp_path / "a.wav", SAMPLE_RATE)
    soundfile.write(tmp_path / "b.wav", np.zeros(16_000), SAMPLE_RATE)
    assert read_audio(tmp_path / "b.wav", SAMPLE_RATE).shape == (16_000,)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3_000), st.sampled_from([8_000, 11_025, 22_051, 32_000, 44_100, 48_000]))
def test_the_resampled_length_is_known_beforehand(frames: int, rate: int) -> None:
    wave = np.ones(frames, np.float32)
    assert resample(wave, rate, 16_000).shape == (resampled_length(frames, rate, 16_000),)


def test_window() -> None:
    assert window(10, 4) == (0, 4) and window(3, 4) == (0, 3)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        window(3, 0)


def test_fit_length_keeps_a_short_waveform() -> None:
    wave = np.arange(10, dtype=np.float32)
    for generator in (None, torch.Generator()):
        np.testing.assert_array_equal(fit_length(wave, 10, generator), wave)
        np.testing.assert_array_equal(fit_length(wave, 11, generator), wave)


def test_fit_length_takes_the_beginning_in_evaluation() -> None:
    wave = np.arange(10, dtype=np.float32)
    np.testing.assert_array_equal(fit_length(wave, 4), wave[:4])


def test_fit_length_crops_everywhere_in_training() -> None:
    wave = np.arange(10, dtype=np.float32)
    generator = torch.Generator().manual_seed(0)
    starts = set()
    for _ in range(200):
        crop = fit_length(wave, 7, generator)
        np.testing.assert_array_equal(crop, np.arange(crop[0], crop[0] + 7))
        starts.add(int(crop[0]))
    assert starts == {0, 1, 2, 3}


def test_fit_length_repeats_with_the_seed() -> None:
    wave = np.arange(1000, dtype=np.float32)
    first, second = (fit_length(wave, 9, torch.Generator().manual_seed(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_fit_length_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        fit_length(np.zeros(3, np.float32), 0)


def mp3(seconds: float, bitrate_mode: str = "VARIABLE", level: float = 0.3) -> bytes:
    file = io.BytesIO()
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, int(44_100 * seconds))
    soundfile.write(
        file, wave, 44_100, format="MP3", bitrate_mode=bitrate_mode, compression_level=level
    )
    return file.getvalue()


def without_length(data: bytes) -> bytes:
    """The MP3 without its first frame, which holds the number of frames."""
    stated = max(data.find(b"Xing"), data.find(b"Info"))
    return data[data.index(data[:2], stated) :]


@pytest.mark.parametrize("tag", [False, True])
@pytest.mark.parametrize("bitrate_mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
def test_an_mp3_that_ends_before_its_header_says_is_left_out_always(
    tmp_path: Path, bitrate_mode: str, tag: bool
) -> None:
    path = tmp_path / "a.mp3"
    data = mp3(6, bitrate_mode)
    if tag:
        data = b"ID3\x03\x00\x00" + bytes([0, 0, 2, 88]) + bytes(2 * 128 + 88) + data
    path.write_bytes(data)
    assert decode.read_header(path) == (6 * 44_100, 44_100)
    path.write_bytes(data[: int(0.6 * len(data))])
    attempts = [lambda: decode.read_header(path), lambda: read_audio(path, SAMPLE_RATE)]
    attempts += [
        lambda seed=seed: read_audio(
            path, SAMPLE_RATE, SAMPLE_RATE, torch.Generator().manual_seed(seed)
        )
        for seed in range(8)
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=r"a.mp3: is truncated, its header says 6.000 s"):
            attempt()


def test_an_mp3_of_unknown_length_is_used_up_to_where_it_ends(tmp_path: Path) -> None:
    """A decoder estimates its length by the first frame's bitrate; here that is far too long."""
    path = tmp_path / "a.mp3"
    soft, loud = (without_length(mp3(s, "CONSTANT", level)) for s, level in ((0.3, 0.9), (4, 0.1)))
    path.write_bytes(soft + loud)
    frames, rate = decode.read_header(path)
    whole = read_audio(path, SAMPLE_RATE)
    assert frames / rate > 1.5 * len(whole) / SAMPLE_RATE > 4
    for seed in range(20):
        crop = read_audio(path, SAMPLE_RATE, 16_000, torch.Generator().manual_seed(seed))
        assert crop.shape == (16_000,)
    # What is cut off such a file cannot be known: what is there counts.
    path.write_bytes(without_length(mp3(6))[:20_000])
    assert len({len(read_audio(path, SAMPLE_RATE, 8_000, None)) for _ in range(3)}) == 1


def torchcodec_reason() -> str:
    """Why torchcodec cannot be used here; empty if it can."""
    try:
        decode.check_decoder("torchcodec")
    except ValueError as error:
        return str(error)
    return ""


TORCHCODEC = torchcodec_reason()


def test_without_torchcodec_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for raised, message in (
        (ModuleNotFoundError("No module named 'torchcodec'"), "needs the package torchcodec"),
        (RuntimeError("Could not load libtorchcodec.\n\nLikely causes: ..."), "install FFmpeg's"),
    ):

        def absent(name: str, error: Exception = raised) -> None:
            raise error

        monkeypatch.setattr(decode.importlib, "import_module", absent)
        with pytest.raises(ValueError, match=message) as caught:
            decode.check_decoder("torchcodec")
        assert "\n" not in str(caught.value)
        decode.check_decoder("soundfile")
    with pytest.raises(ValueError, match="'soundfile' or 'torchcodec', not 'ffmpeg'"):
        decode.check_decoder("ffmpeg")


@pytest.mark.skipif(bool(TORCHCODEC), reason=TORCHCODEC)
@pytest.mark.parametrize(
    ("name", "atol"), [("a.wav", 1e-6), ("a.flac", 1e-6), ("a.ogg", 1e-3), ("a.mp3", 1e-3)]
)
def test_torchcodec_agrees_with_soundfile(tmp_path: Path, name: str, atol: float) -> None:
    wave = np.stack([sine(440, 44_100, 2.0), 0.2 * sine(1000, 44_100, 2.0)], axis=1)
    soundfile.write(tmp_path / name, wave, 44_100)
    ours = read_audio(tmp_path / name, SAMPLE_RATE)
    theirs = read_audio(tmp_path / name, SAMPLE_RATE, decoder="torchcodec")
    assert theirs.dtype == np.float32 and abs(len(ours) - len(theirs)) <= 1_024
    shared = min(len(ours), len(theirs))
    np.testing.assert_allclose(theirs[:shared], ours[:shared], atol=atol)
    crop = read_audio(tmp_path / name, SAMPLE_RATE, 8_000, decoder="torchcodec")
    np.testing.assert_array_equal(crop, theirs[:8_000])
    data = (tmp_path / name).read_bytes()
    part = FileSlice(tmp_path / name, 0, len(data), name)
    np.testing.assert_array_equal(read_audio(part, SAMPLE_RATE, decoder="torchcodec"), theirs)


@pytest.mark.skipif(bool(TORCHCODEC), reason=TORCHCODEC)
@pytest.mark.parametrize(
    "kind",
    ["missing", "empty", "text", "truncated header", "nan", "integers", "short", "a rate of 1 Hz"],
)
def test_torchcodec_names_bad_files_in_one_sentence(tmp_path: Path, kind: str) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        read_audio(path, SAMPLE_RATE, decoder="torchcodec")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(bool(TORCHCODEC), reason=TORCHCODEC)
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_torchcodec_reads_headers_on_opening(tmp_path: Path, name: str, seconds: float) -> None:
    path = tmp_path / name
    soundfile.write(
        path, np.random.default_rng(0).uniform(-0.5, 0.5, int(44_100 * seconds)), 44_100
    )
    frames, rate = decode.read_header(path, "torchcodec")
    assert rate == 44_100 and abs(frames / rate - seconds) < 0.06
    # Cut off, it is left out on opening and wherever it is decoded, or used wherever it is.
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    outcomes = []
    for attempt in (
        lambda: decode.read_header(path, "torchcodec")[0],
        lambda: len(read_audio(path, 44_100, decoder="torchcodec")),
    ):
        try:
            outcomes.append(attempt() / 44_100)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            outcomes.append(None)
    assert (outcomes[0] is None) == (outcomes[1] is None)
    if outcomes[0] is not None:
        assert outcomes[0] < 0.7 * seconds and outcomes[0] == pytest.approx(outcomes[1], abs=0.1)


@pytest.mark.skipif(bool(TORCHCODEC), reason=TORCHCODEC)
def test_a_data_set_of_files_that_soundfile_cannot_read(tmp_path: Path) -> None:
    """AAC, written by FFmpeg through torchcodec."""
    from torchcodec.encoders import AudioEncoder

    wave = torch.from_numpy(sine(440, 44_100, 2.0)).float()[None]
    for name in ("a.m4a", "b.m4a"):
        AudioEncoder(wave, sample_rate=44_100).to_file(str(tmp_path / name))
    (tmp_path / "train.csv").write_text("file_name,caption\na.m4a,a tone\nb.m4a,a tone again\n")
    with pytest.raises(ValueError, match="not readable as audio"):
        open_manifest(ManifestConfig(root=tmp_path))
    data = open_manifest(ManifestConfig(root=tmp_path, decoder="torchcodec", strict=True))
    assert data.seconds == pytest.approx(4.0, abs=0.2) and data.file_rates == {44_100: 2}
    data.read_with(AudioReader(48_000, "torchcodec"))
    read = data.load(data.clips("train")[0])
    assert abs(len(read) - 96_000) < 4_800
    assert np.sqrt(np.mean(np.square(read))) == pytest.approx(0.5 / np.sqrt(2), abs=0.03)
