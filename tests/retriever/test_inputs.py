"""Recordings in any form: one sound has one embedding, however it is given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_bundle import make_bundle, noise

from atr_moco_plugin.data.audio.source import FileSlice, MemoryFile, Segment
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever

RATE = 22_050


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> AudioTextRetriever:
    return AudioTextRetriever.from_pretrained(
        make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), device="cpu"
    )


@pytest.fixture(scope="module")
def sound() -> np.ndarray[Any, Any]:
    """1.7 s of 16-bit stereo, longer than a window."""
    stereo = np.stack([noise(37_485, 1), noise(37_485, 2)], axis=1)
    rounded: np.ndarray[Any, Any] = np.rint(stereo * 32_768).astype(np.int16)
    return rounded


@pytest.fixture(scope="module")
def file(sound: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "🐕\n.wav"
    soundfile.write(path, sound, RATE)
    return path


def test_every_form_of_one_sound(
    retriever: AudioTextRetriever, sound: np.ndarray[Any, Any], file: Path
) -> None:
    floats = sound.astype(np.float32) / 32_768
    content = file.read_bytes()
    forms: dict[str, Any] = {
        "a name": str(file),
        "a path": file,
        "a file object": io.BytesIO(content),
        "bytes": content,
        "a file in memory": MemoryFile(content, "x"),
        "a slice": FileSlice(file, 0, len(content), "x"),
        "a segment": Segment(str(file), 0.0, 1.7),
        "what datasets has": {"bytes": content, "path": None},
        "what datasets had": {"array": floats, "sampling_rate": RATE},
        "what soundfile reads": soundfile.read(file),
        "integers": (sound, RATE),
        "channels first": (sound.T, RATE),
        "wide integers": (sound.astype(np.int32) * 65_536, RATE),
        "doubles": (floats.astype(np.float64), RATE),
        "one channel": (floats.mean(axis=1), RATE),
        "a tensor": (torch.from_numpy(floats.T.copy()), RATE),
        "a tensor with a gradient": (torch.from_numpy(floats).requires_grad_(), RATE),
    }
    expected = retriever.embed_audio(file)[0]
    assert retriever.embed_audio(file).shape == (1, 12)
    together = retriever.embed_audio(list(forms.values()))
    for name, row, form in zip(forms, together, forms.values(), strict=True):
        torch.testing.assert_close(
            row, expected, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n} {m}"
        )
        alone = retriever.embed_audio(form)
        assert alone.shape == (1, 12), name
        assert torch.allclose(alone[0], expected, atol=1e-5, rtol=0), name
    half = retriever.embed_audio((floats.astype(np.float16), RATE))[0]
    torch.testing.assert_close(half, expected, atol=1e-3, rtol=0)


def test_the_rate_is_an_argument_too(
    retriever: AudioTextRetriever, sound: np.ndarray[Any, Any], file: Path
) -> None:
    expected = retriever.embed_audio(file)
    torch.testing.assert_close(
        retriever.embed_audio(sound, sample_rate=RATE), expected, atol=1e-5, rtol=0
    )
    # A file says its own.
    assert torch.equal(retriever.embed_audio(file, sample_rate=8_000), expected)


def test_an_open_file_stays_where_it_is(retriever: AudioTextRetriever, file: Path) -> None:
    with file.open("rb") as stream:
        assert torch.equal(retriever.embed_audio(stream), retriever.embed_audio(stream))
        stream.seek(0, io.SEEK_END)
        with pytest.raises(InputError, match="is at its end: go back with seek"):
            retriever.embed_audio(stream)
    with pytest.raises(InputError, match="cannot be read as an open file"):
        retriever.embed_audio(stream)
    with file.open(encoding="latin-1") as text:
        with pytest.raises(InputError, match="gives str, not bytes: open it with 'rb'"):
            retriever.embed_audio(text)


def test_any_iterable_of_recordings(retriever: AudioTextRetriever, file: Path) -> None:
    rows = retriever.embed_audio(path for path in [file, str(file)])
    assert torch.equal(rows[0], rows[1])
    pair = retriever.embed_audio(((noise(9_000, 1), 16_000), (noise(9_000, 2), 16_000)))
    assert pair.shape == (2, 12)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ("nowhere.wav", "There is no audio file nowhere.wav: correct the path"),
        (np.zeros(16_000), "recording 0: its sampling rate is not known: give `sample_rate=`"),
        ((np.zeros(16_000), 16.5), "recording 0: its sampling rate is not known"),
        ((np.zeros(16_000), 16), "recording 0: its sampling rate is 16, expected a whole number"),
        ((np.zeros(1_000), 16_000), "recording 0: lasts 0.062 s, at least 0.175 s is needed"),
        ((np.zeros(0), 16_000), "recording 0: it has no samples"),
        ((np.full(16_000, np.nan), 16_000), "recording 0: it has NaN or infinite samples"),
        ((np.full(16_000, 9e3), 16_000), "recording 0: it has float samples up to 9,000"),
        ((np.zeros((100, 100)), 16_000), "does not say which are the channels"),
        ([0.1, 0.2], "recording 0: a float is no audio: give a path, an open file, or an array"),
        ([[0.1, 0.2]], "recording 0: a list is no audio"),
        ([None], "recording 0: a NoneType is no audio"),
        (b"RIFF", "recording 0: audio given as bytes: not readable as audio"),
        ({"sound": 1}, r"recording 0: it is a mapping of \['sound'\]"),
    ],
)
def test_one_sentence_for_audio_that_cannot_be_read(
    retriever: AudioTextRetriever, audio: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        retriever.embed_audio(audio)


def test_integers_that_were_not_scaled_are_refused_in_a_file_too(
    retriever: AudioTextRetriever, sound: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    file, said = tmp_path / "a.wav", "it has float samples up to .*, where full scale is 1"
    for rate in (16_000, 44_100):
        soundfile.write(file, 0.5 * sound / np.abs(sound).max(), rate, subtype="FLOAT")
        retriever.embed_audio(file)
        wave = soundfile.read(file)[0] * 2**15
        soundfile.write(file, wave, rate, subtype="FLOAT")
        for given in (file, Segment(str(file), 0, 0.5)):
            with pytest.raises(InputError, match=rf"^\S*/a.wav[^:]*: {said}"):
                retriever.embed_audio(given)
        with pytest.raises(InputError, match=f"^recording 0: audio given as bytes: {said}"):
            retriever.embed_audio(file.read_bytes())
        with pytest.raises(InputError, match=f"^recording 0: {said}"):
            retriever.embed_audio((wave, rate))


def test_windows_of_integers_that_were_not_scaled_or_of_no_array_are_refused(
    retriever: AudioTextRetriever,
) -> None:
    wave = noise(8_000)
    for given, said in (
        (wave * 2**15, "waveform 1: it has float samples up to .*, where full scale is 1"),
        (wave.tolist(), "waveform 1 is a list, expected an array of numpy: `windows` makes them"),
    ):
        with pytest.raises(InputError, match=said):
            retriever.embed_windows([wave, given])
        with pytest.raises(InputError, match=said):
            retriever.match_windows(["rain", "rain"], [wave, given])


def test_the_recording_that_cannot_be_read_is_named(
    retriever: AudioTextRetriever, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="recording 1: it has no samples"):
        retriever.embed_audio([file, (np.zeros(0), 16_000)])
    with pytest.raises(InputError, match="the recording: it has no samples"):
        list(retriever.windows(np.zeros(0), 16_000))
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"^\S*/a.wav: not readable as audio"):
        retriever.embed_audio([file, tmp_path / "a.wav"])
    with pytest.raises(InputError, match="is a folder: give its files"):
        retriever.embed_audio(tmp_path)
