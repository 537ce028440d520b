"""What users give, checked: recordings in any form as windows, and sentences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.data.audio.read import check_length
from atr_moco_plugin.data.audio.scale import MAX_PEAK, scale_problem
from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.audio.stream import AudioWindow, cut_windows, read_windows
from atr_moco_plugin.data.audio.waveform import as_source, as_waveform
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.retriever.backbone import Samples

_NAMED = (str, os.PathLike, FileSlice, Segment)


def as_recordings(audio: Any) -> list[Any]:
    """What a user gave as audio, as a list of recordings: one alone is a list of one."""
    return list(audio) if isinstance(audio, Iterable) and not _is_one(audio) else [audio]


def _is_one(audio: Any) -> bool:
    kinds = (str, bytes, bytearray, memoryview, Mapping, np.ndarray, Tensor)
    if isinstance(audio, kinds) or hasattr(audio, "read") or hasattr(audio, "get_all_samples"):
        return True
    return _is_pair(audio) and isinstance(audio[1], (int, np.integer))


def _is_pair(audio: Any) -> bool:
    """Whether it is an array with its rate, as ``soundfile.read`` returns them."""
    return isinstance(audio, tuple) and len(audio) == 2 and _is_samples(audio[0])


def _is_samples(audio: Any) -> bool:
    return isinstance(audio, (np.ndarray, Tensor))


def recording_windows(
    audio: Any, sample_rate: int, size: int, hop: int, rate: int | None, name: str
) -> Iterator[AudioWindow]:
    """The windows of one recording.

    Args:
        audio: see :meth:`~atr_moco_plugin.retriever.AudioTextRetriever.windows`.
        sample_rate: of the windows in Hz.
        size: samples of a window.
        hop: samples from the start of a window to the start of the next.
        rate: of an array or tensor in Hz.
        name: what to call a recording without a name of its own in messages.

    Raises:
        InputError: if it cannot be read, or an array comes without a rate.
    """
    if isinstance(audio, (str, os.PathLike)) and not os.path.exists(audio):
        raise MissingFileError(f"There is no audio file {os.fspath(audio)}: correct the path.")
    if isinstance(audio, (str, os.PathLike)) and os.path.isdir(audio):
        raise InputError(f"{os.fspath(audio)} is a folder: give its files, or make an index of it.")
    try:
        source = as_source(audio)
        if source is not None:
            yield from read_windows(source, sample_rate, size, hop)
            return
        if _is_pair(audio):
            audio, rate = audio
        if _is_samples(audio):
            if rate is None:
                raise InputError(
                    "its sampling rate is not known: give `sample_rate=`, or a pair of the array "
                    "and its rate"
                )
            audio = {"array": audio, "sampling_rate": rate}
        if not isinstance(audio, Mapping) and not hasattr(audio, "get_all_samples"):
            raise InputError(
                f"a {type(audio).__name__} is no audio: give a path, an open file, or an array "
                "or tensor with its rate"
            )
        waveform = as_waveform(audio, sample_rate)
    except InputError as ex:
        if isinstance(audio, _NAMED):  # in the message already
            raise
        raise InputError(f"{name}: {ex}") from ex
    waveform = check_length(waveform, sample_rate, name)
    yield from cut_windows([waveform], sample_rate, size, hop)


def long_enough(
    windows: Iterable[AudioWindow], least: int, sample_rate: int, audio: Any, name: str
) -> Iterator[AudioWindow]:
    """The windows of a recording, refused where it is shorter than its model takes.

    Args:
        windows: of the recording.
        least: samples of the shortest.
        sample_rate: theirs in Hz.
        audio: the recording.
        name: what to call it where it has no name of its own.
    """
    for window in windows:
        if (samples := len(window.waveform)) < least:
            shown = audio if isinstance(audio, _NAMED) else name
            raise InputError(
                f"{shown}: lasts {samples / sample_rate:.3f} s, and this model needs at least "
                f"{least / sample_rate:.3f} s; leave it out or pad it with silence"
            )
        yield window


class Part(NamedTuple):
    """Windows of some recordings.

    Attributes:
        rows: of each window, the number of its recording.
        waveforms: the windows.
        names: of each window, what to call its recording in messages.
    """

    rows: list[int]
    waveforms: list[Samples]
    names: list[str]


def in_parts(
    recordings: Iterable[Any], windows: Callable[[Any, str], Iterable[AudioWindow]], size: int
) -> Iterator[Part]:
    """Windows of all recordings, some at once.

    Args:
        recordings: in any form.
        windows: cuts one, which has a name for messages.
        size: windows at once.

    Raises:
        InputError: if a recording cannot be read; one without a name is named by its number.
    """
    part = Part([], [], [])
    for row, recording in enumerate(recordings):
        number = f"recording {row}"
        name = f"{number} ({recording})" if isinstance(recording, _NAMED) else number
        for window in windows(recording, number):
            part.rows.append(row)
            part.waveforms.append(window.waveform)
            part.names.append(name)
            if len(part.rows) == size:
                yield part
                part = Part([], [], [])
    if part.rows:
        yield part


def as_sentences(texts: str | Sequence[str]) -> list[str]:
    """Sentences as a list: one alone is a list of one.

    Raises:
        InputError: for what is no string, or no text.
    """
    sentences = [texts] if isinstance(texts, str) else list(texts)
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise InputError(f"sentence {number} is a {type(sentence).__name__}, not a string")
        if any("\ud800" <= letter <= "\udfff" for letter in sentence):
            raise InputError(
                f"sentence {number} ({sentence[:60]!r}) has half of a character: it was not read "
                "as UTF-8"
            )
    return sentences


def check_pairs(sentences: Sequence[str], audio: Sequence[Any]) -> None:
    """Refuse pairs of which one side is longer."""
    if len(sentences) != len(audio):
        raise InputError(
            f"there are {len(sentences)} sentences for {len(audio)} recordings: give as many of "
            "the one as of the other"
        )


def given_windows(waveforms: Sequence[NDArray[np.float32]], size: int) -> Part:
    """Waveforms that a user gave, as :func:`recording_windows` makes them.

    Args:
        waveforms: arrays.
        size: most samples of one.

    Raises:
        InputError: by its number, for one of another shape or kind, or of integers that were turned
            into floats and not scaled.
    """
    for number, waveform in enumerate(waveforms):
        if not isinstance(waveform, np.ndarray):
            raise InputError(
                f"waveform {number} is a {type(waveform).__name__}, expected an array of numpy: "
                "`windows` makes them"
            )
        if waveform.ndim != 1 or len(waveform) > size:
            raise InputError(
                f"waveform {number} has the shape {list(waveform.shape)}, expected at most "
                f"[{size}]: cut it with `windows`"
            )
        if waveform.dtype.kind != "f":
            raise InputError(
                f"waveform {number} has {waveform.dtype}, expected floats from -1 to 1: `windows` "
                "makes them"
            )
        peak = float(max(waveform.max(initial=0), -waveform.min(initial=0)))
        # Twice, since resampling may go beyond; NaN is named where it is embedded.
        if np.isfinite(peak) and (problem := scale_problem(peak, 2 * MAX_PEAK)):
            raise InputError(f"waveform {number}: {problem}")
    rows = range(len(waveforms))
    return Part(list(rows), list(waveforms), [f"waveform {number}" for number in rows])
