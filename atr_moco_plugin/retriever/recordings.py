"""What users give, checked: recordings in any form as windows, and sentences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from atr_moco_plugin.data.audio.read import check_length
from atr_moco_plugin.data.audio.source import FileSlice, MemoryFile, Segment
from atr_moco_plugin.data.audio.stream import AudioWindow, cut_windows, read_windows
from atr_moco_plugin.data.audio.waveform import as_waveform
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever.backbone import Samples


def as_recordings(audio: Any) -> list[Any]:
    """What a user gave as audio, as a list of recordings: one alone is a list of one."""
    return list(audio) if isinstance(audio, Sequence) and not _is_one(audio) else [audio]


def _is_one(audio: Any) -> bool:
    if isinstance(audio, (str, bytes, bytearray, memoryview, FileSlice, MemoryFile, Segment)):
        return True
    return isinstance(audio, tuple) and len(audio) == 2 and _is_samples(audio[0])


def _is_samples(audio: Any) -> bool:
    return isinstance(audio, (np.ndarray, Tensor))


def recording_windows(
    audio: Any, sample_rate: int, size: int, hop: int, rate: int | None = None
) -> Iterator[AudioWindow]:
    """The windows of one recording.

    Args:
        audio: see :meth:`~atr_moco_plugin.retriever.AudioTextRetriever.windows`.
        sample_rate: of the windows in Hz.
        size: samples of a window.
        hop: samples from the start of a window to the start of the next.
        rate: of an array or tensor in Hz.

    Raises:
        InputError: if it cannot be read, or an array comes without a rate.
    """
    if isinstance(audio, tuple):
        audio, rate = audio
    if isinstance(audio, (str, os.PathLike, FileSlice, MemoryFile, Segment)):
        yield from read_windows(audio, sample_rate, size, hop)
        return
    if _is_samples(audio):
        if rate is None:
            raise InputError(
                "an array or tensor does not say its sampling rate: give `sample_rate=`, or a pair "
                "of the array and its rate"
            )
        audio = {"array": audio, "sampling_rate": rate}
    if not isinstance(audio, (Mapping, bytes, bytearray, memoryview)) and not hasattr(
        audio, "get_all_samples"
    ):
        raise InputError(f"{type(audio).__name__} is no audio: give a path, an array with a rate")
    waveform = check_length(as_waveform(audio, sample_rate), sample_rate, "the recording")
    yield from cut_windows([waveform], sample_rate, size, hop)


def in_parts(
    recordings: Iterable[Any], windows: Callable[[Any], Iterable[AudioWindow]], size: int
) -> Iterator[tuple[list[int], list[Samples]]]:
    """Windows of all recordings, some at once, each with the number of its recording.

    Args:
        recordings: in any form.
        windows: cuts one.
        size: windows at once.

    Raises:
        InputError: if a recording cannot be read; one without a name of its own by its number.
    """
    rows: list[int] = []
    waveforms: list[Samples] = []
    for row, recording in enumerate(recordings):
        try:
            for window in windows(recording):
                rows.append(row)
                waveforms.append(window.waveform)
                if len(rows) == size:
                    yield rows, waveforms
                    rows, waveforms = [], []
        except InputError as ex:
            if isinstance(recording, (str, os.PathLike)):
                raise
            raise InputError(f"recording {row}: {ex}") from ex
    if rows:
        yield rows, waveforms


def as_sentences(texts: str | Sequence[str]) -> list[str]:
    """Sentences as a list: one alone is a list of one.

    Raises:
        InputError: for what is no string.
    """
    sentences = [texts] if isinstance(texts, str) else list(texts)
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise InputError(f"sentence {number} is a {type(sentence).__name__}, not a string")
    return sentences


def check_pairs(sentences: Sequence[str], audio: Sequence[Any]) -> None:
    """Refuse pairs of which one side is longer."""
    if len(sentences) != len(audio):
        raise InputError(
            f"there are {len(sentences)} sentences for {len(audio)} recordings: give as many of "
            "the one as of the other"
        )
