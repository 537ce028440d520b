"""Audio in any form that a data set or a user hands over, as mono float32 at a model's rate."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.data.audio.read import read_audio, resample
from atr_moco_plugin.data.audio.scale import scale_problem
from atr_moco_plugin.data.audio.source import (
    MAX_SLICE_BYTES,
    FileSlice,
    MemoryFile,
    Segment,
    Source,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.sample_rate import RATES

Samples = NDArray[np.float32]

MAX_CHANNELS = 32
"""A two-dimensional array is taken to have at most so many channels."""

_INTEGERS = {"uint8": (128, 2**7), "int8": (0, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}
"""Zero and full scale of the integer types that are read."""

_FORMS = (
    "give floats within [-1, 1], int8, int16, int32 or uint8, {'array', 'sampling_rate'}, "
    "{'bytes', 'path'}, a path, an open file, or a decoder of `datasets`"
)


class BadClipError(InputError):
    """The audio of one clip cannot be used; other clips in the same form may be fine."""


def as_waveform(audio: Any, sample_rate: int) -> Samples:
    """One clip's audio, decoded, scaled, averaged over its channels and resampled once.

    Args:
        audio: one of

            * a waveform at ``sample_rate``: an array, a tensor or a list. Floats are taken as they
              are; int8, int16 and int32 are divided by the full scale of their type, uint8 by 128
              after 128 is subtracted.
            * ``{"array", "sampling_rate"}``: a waveform at a rate of its own.
            * ``{"bytes", "path"}``, as ``Audio(decode=False)`` of `datasets` has it: the content of
              an audio file, or its path where the content is None; also the content or the path
              alone, or a file that is open for reading bytes.
            * a decoder with ``get_all_samples()``, of `datasets` 4 or torchcodec.

            In a two-dimensional array the dimension of size 1 is the channels, else the smaller
            one, of at most :data:`MAX_CHANNELS`; in a decoder's samples it is the first.
        sample_rate: rate of the result in Hz.

    Returns:
        ``[samples]``, at least one, all of them finite.

    Raises:
        BadClipError: the clip has no samples, NaN or infinite ones, floats beyond
            :data:`~.scale.MAX_PEAK`, or cannot be decoded.
        InputError: audio in this form cannot be read.
    """
    if audio is None:
        raise BadClipError("there is no audio")
    source = as_source(audio)
    if source is not None:
        with _decoding():
            mono = read_audio(source, sample_rate)
        return _resampled(mono, sample_rate, sample_rate)
    if isinstance(audio, Mapping):
        rate = _rate(audio.get("sampling_rate"))
        return _resampled(_mono(_floats(audio["array"])), rate, sample_rate)
    if hasattr(audio, "get_all_samples"):
        with _decoding():
            decoded = audio.get_all_samples()
        mono = _floats(decoded.data).mean(axis=0)
        return _resampled(mono, _rate(decoded.sample_rate), sample_rate)
    return _resampled(_mono(_floats(audio)), sample_rate, sample_rate)


def as_source(audio: Any) -> Source | None:
    """Where an audio file is, of audio that is one; None for samples.

    Args:
        audio: see :func:`as_waveform`, or a part of a file.

    Raises:
        BadClipError: a mapping has neither samples nor a file.
        InputError: a mapping of another kind, or a file that cannot be read here.
    """
    if isinstance(audio, Mapping):
        if audio.get("array") is not None:
            return None
        audio = _encoded(audio)
        if audio is None:
            raise BadClipError("there is no audio")
    if isinstance(audio, bytes | bytearray | memoryview):
        return MemoryFile(bytes(audio), "audio given as bytes")
    if isinstance(audio, str | os.PathLike | FileSlice | Segment | MemoryFile):
        return audio
    return _open_file(audio) if hasattr(audio, "read") else None


def _open_file(file: Any) -> MemoryFile:
    """The rest of an open file, which is left where it was."""
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "the open file"
    try:
        place = file.tell() if file.seekable() else None
        content = file.read(MAX_SLICE_BYTES + 1)
        if place is not None:
            file.seek(place)
    except (AttributeError, OSError, ValueError) as ex:  # closed, or not open for reading
        raise InputError(f"{name}: cannot be read as an open file ({ex})") from ex
    if not isinstance(content, bytes):
        raise InputError(f"{name}: gives {type(content).__name__}, not bytes: open it with 'rb'")
    if len(content) > MAX_SLICE_BYTES:
        raise InputError(
            f"{name}: has more than {MAX_SLICE_BYTES:,} bytes: give its path, it is read in parts"
        )
    if not content and place:
        raise InputError(f"{name}: is at its end: go back with seek(0)")
    return MemoryFile(content, name)


def _encoded(audio: Mapping[str, Any]) -> Any:
    """The file's content or its path, from a mapping without samples."""
    if not {"array", "bytes", "path"} & set(audio):
        raise InputError(f"it is a mapping of {shown(list(audio))}; {_FORMS}")
    content, path = audio.get("bytes"), audio.get("path")
    if content is None:
        return path
    return MemoryFile(bytes(content), str(path or "audio given as bytes"))


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    # torchcodec raises RuntimeError.
    except (OSError, RuntimeError, ValueError) as ex:
        raise BadClipError(" ".join(str(ex).split())) from ex


def _floats(samples: Any) -> Samples:
    """Samples of any shape as float32, integers scaled to within [-1, 1]."""
    try:
        if isinstance(samples, Tensor):
            samples = samples.detach().cpu()
            # NumPy has no bfloat16.
            samples = (samples.float() if samples.is_floating_point() else samples).numpy()
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"its inner lists have different lengths, or it is no dense tensor; {_FORMS}"
        ) from None
    if array.size == 0:
        raise BadClipError("it has no samples")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32, copy=False)
    if array.dtype.name in _INTEGERS:
        zero, full_scale = _INTEGERS[array.dtype.name]
        return (array.astype(np.float32) - np.float32(zero)) / np.float32(full_scale)
    if array.dtype.kind in "iu":
        raise InputError(
            f"it has numbers of the type {array.dtype}, whose full scale is not known; {_FORMS}"
        )
    raise InputError(f"it is of the type {type(samples).__name__} ({array.dtype}); {_FORMS}")


def _mono(samples: Samples) -> Samples:
    """The mean over the channels, wherever they are."""
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise InputError(
            f"it has the shape {list(samples.shape)}, expected [samples], [channels, samples] or "
            "[samples, channels]"
        )
    if 1 in samples.shape:
        return samples.reshape(-1)
    if samples.shape[0] == samples.shape[1] or min(samples.shape) > MAX_CHANNELS:
        raise InputError(
            f"its shape {list(samples.shape)} does not say which are the channels; average them "
            "and give [samples]"
        )
    mono: Samples = samples.mean(axis=int(np.argmin(samples.shape)))
    return mono


def _resampled(mono: Samples, rate: int, sample_rate: int) -> Samples:
    """The waveform at another rate, once it is known to be sound."""
    peak = float(np.abs(mono).max())
    if not np.isfinite(peak):
        raise BadClipError("it has NaN or infinite samples")
    if problem := scale_problem(peak):
        raise BadClipError(problem)
    waveform = resample(mono, rate, sample_rate)
    if not waveform.size:
        raise BadClipError(f"it has {mono.size} samples at {rate} Hz, not one at {sample_rate} Hz")
    return waveform


def shown(value: Any) -> str:
    """A value in a message: one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _rate(rate: Any) -> int:
    try:
        hertz = operator.index(rate)
    except TypeError:
        hertz = 0
    if not RATES[0] <= hertz <= RATES[1]:
        raise InputError(
            f"its sampling rate is {shown(rate)}, expected a whole number of Hz from {RATES[0]} to "
            f"{RATES[1]}"
        )
    return hertz
