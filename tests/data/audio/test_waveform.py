"""Audio in every form that a data set hands over: read rightly, left out, or refused."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from trainer_world import RATE

from atr_moco_plugin.data.audio.waveform import BadClipError, as_waveform
from atr_moco_plugin.errors import InputError

SECOND = np.sin(np.arange(RATE) / 3).astype(np.float32) / 2


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def decoder(samples: np.ndarray, rate: int) -> Any:
    """As `datasets` 4 hands it over: channels first, however few the samples are."""
    decoded = SimpleNamespace(data=torch.from_numpy(samples), sample_rate=rate)
    return SimpleNamespace(get_all_samples=lambda: decoded)


@pytest.mark.parametrize(
    ("audio", "tolerance"),
    [
        (SECOND, 0),
        (SECOND.astype(np.float64), 0),
        (SECOND.astype(np.float16), 1e-3),
        (SECOND.tolist(), 0),
        (torch.from_numpy(SECOND), 0),
        (torch.from_numpy(SECOND).bfloat16(), 4e-3),
        (torch.from_numpy(SECOND).requires_grad_(), 0),
        (np.round(SECOND * 2**15).astype(np.int16), 2e-5),
        (torch.from_numpy(np.round(SECOND * 2**15).astype(np.int16)), 2e-5),
        (np.round(SECOND.astype(np.float64) * 2**31).astype(np.int32), 1e-7),
        (np.round(SECOND * 128 + 128).astype(np.uint8), 5e-3),
        (np.round(SECOND * 128).astype(np.int8), 5e-3),
        (SECOND[None], 0),
        (SECOND[:, None], 0),
        (np.stack([SECOND * 1.5, SECOND * 0.5]), 1e-6),
        (np.stack([SECOND * 1.5, SECOND * 0.5], axis=1), 1e-6),
        (np.stack([SECOND * 1.5, SECOND * 0.5]).tolist(), 1e-6),
        ({"array": SECOND, "sampling_rate": RATE}, 0),
        ({"path": "a.wav", "array": SECOND.tolist(), "sampling_rate": np.int64(RATE)}, 0),
        ({"bytes": wav(SECOND, RATE), "path": None}, 0),
        ({"bytes": wav(np.stack([SECOND, SECOND], axis=1), RATE), "path": "a.wav"}, 0),
        (wav(SECOND, RATE), 0),
        (memoryview(wav(SECOND, RATE)), 0),
        (decoder(SECOND[None], RATE), 0),
        (decoder(np.stack([SECOND, SECOND]), RATE), 0),
    ],
    ids=lambda x: type(x).__name__,
)
def test_forms_of_audio(audio: Any, tolerance: float) -> None:
    found = as_waveform(audio, RATE)
    assert found.dtype == np.float32 and found.shape == (RATE,)
    np.testing.assert_allclose(found, SECOND, rtol=0, atol=tolerance)


def test_audio_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(SECOND, RATE))
    for audio in (path, str(path), {"bytes": None, "path": str(path)}):
        assert np.array_equal(as_waveform(audio, RATE), SECOND)


def test_few_samples_of_a_decoder_are_not_its_channels() -> None:
    three = np.float32([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])  # three channels of two samples
    np.testing.assert_allclose(as_waveform(decoder(three, RATE), RATE), [0.3, 0.4], rtol=1e-6)
    # Of an array the smaller dimension is.
    np.testing.assert_allclose(as_waveform(three, RATE), [0.15, 0.35, 0.55], rtol=1e-6)


def test_audio_of_another_rate_is_resampled_once(tmp_path: Path) -> None:
    rate = 3 * RATE
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) / 2
    expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) / 2
    (tmp_path / "a.wav").write_bytes(wav(tone, rate))
    for audio in (
        {"array": tone, "sampling_rate": rate},
        {"array": np.round(tone * 2**15).astype(np.int16), "sampling_rate": rate},
        {"bytes": wav(tone, rate), "path": None},
        {"bytes": None, "path": str(tmp_path / "a.wav")},
        decoder(tone[None], rate),
    ):
        found = as_waveform(audio, RATE)
        assert found.shape == (RATE,)
        np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-3)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros(0), "no samples"),
        ([], "no samples"),
        (np.zeros((2, 0)), "no samples"),
        ({"array": [], "sampling_rate": RATE}, "no samples"),
        ({"array": [0.5], "sampling_rate": 3 * RATE}, "1 samples at 24000 Hz, not one at 8000 Hz"),
        (np.float32([0, math.nan, 0]), "NaN or infinite"),
        ({"array": [0.0, math.inf], "sampling_rate": 48_000}, "NaN or infinite"),
        (np.float64([0, 1e300]), "NaN or infinite"),
        (decoder(np.float32([[0, math.nan]]), RATE), "NaN or infinite"),
        (SECOND * 2**15, "float samples up to 16,38.*as int16"),
        (None, "no audio"),
        ({"bytes": None, "path": None}, "no audio"),
        ({"array": None, "sampling_rate": RATE}, "no audio"),
        (b"no sound", "not readable as audio"),
        (b"", "empty"),
        (wav(SECOND, RATE)[:500], "truncated"),
        ("nowhere.wav", "nowhere.wav: no such audio file"),
    ],
)
def test_a_clip_that_cannot_be_used(audio: Any, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadClipError, match=words) as caught:
            as_waveform(audio, RATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros((40, 50)), r"shape \[40, 50\] does not say"),
        (np.zeros((2, 2)), r"shape \[2, 2\] does not say"),
        (np.zeros((1, 1, 100)), r"shape \[1, 1, 100\]"),
        (0.5, r"shape \[\]"),
        ([0, 1, -1], "type int64, whose full scale is not known"),
        (np.zeros(9, np.uint16), "type uint16, whose full scale"),
        (np.zeros(9, bool), "bool"),
        (np.zeros(9, complex), "complex"),
        ([[0.1, 0.2], [0.3]], "different lengths"),
        (["a", "b"], "type list"),
        (torch.eye(3).to_sparse(), "no dense tensor"),
        ({"array": SECOND}, "sampling rate is None"),
        ({"array": SECOND, "sampling_rate": 0}, "sampling rate is 0"),
        ({"array": SECOND, "sampling_rate": "16k"}, "sampling rate is '16k'"),
        ({"array": SECOND, "sampling_rate": [RATE, RATE]}, "sampling rate is"),
        ({"waveform": SECOND}, "a mapping of \\['waveform'\\]"),
        (object(), "type object"),
    ],
)
def test_audio_of_a_form_that_is_refused(audio: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        as_waveform(audio, RATE)
    assert not isinstance(caught.value, BadClipError) and "\n" not in str(caught.value)
