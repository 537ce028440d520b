"""Audio files to mono samples at their own rate.

soundfile is the default. torchcodec also reads what only FFmpeg knows (AAC, WMA, ...), needs
FFmpeg's libraries, and always decodes a whole file. Lossy formats may come out of two decoders with
different numbers of samples.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import soundfile
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.complete import TOLERANCE, check_complete
from atr_moco_plugin.data.audio.scale import check_samples
from atr_moco_plugin.data.audio.source import Source, open_source, unusable
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.sample_rate import RATES

Decoder = Literal["soundfile", "torchcodec"]

Mix = Callable[[NDArray[np.float32], Source], NDArray[np.float32]]
"""Makes of a source's samples ``[n, channels]`` what is wanted of them."""

MAX_HOURS = 3.0
"""Longest file that is decoded as a whole, at 48 kHz (at a higher rate accordingly less): 2 GB
before it is resampled. Crops are taken from longer ones too."""

_BLOCK = 2**20  # samples over all channels that are decoded at once

# A seek is exact where every sample (or every FLAC frame) stands for itself. In some Vorbis files
# the first samples after libsndfile's seek are others than without, and in MP3 it may be "fuzzy".
_EXACT_SEEK = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")


def check_decoder(decoder: str) -> None:
    """Refuse an unknown decoder, and torchcodec where it cannot be loaded.

    Raises:
        InputError: saying what is missing.
    """
    if decoder not in get_args(Decoder):
        raise InputError(f"decoder must be 'soundfile' or 'torchcodec', not {decoder!r}")
    if decoder == "torchcodec":
        _torchcodec()


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """Says that a damaged MP3 is behind its own end, where soundfile makes an array of a negative
    size."""

    def read(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        if self.seekable() and self.tell() > self.frames:
            raise soundfile.SoundFileError("it goes on behind its end")
        return np.asarray(super().read(*args, **kwargs))


@contextmanager
def opened(source: Source) -> Iterator[soundfile.SoundFile]:
    """Open audio with soundfile; its errors become one sentence that names the source.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is not readable as audio, within the ``with`` block too.
    """
    try:
        place = open_source(source)
        # As bytes, since soundfile encodes a name as UTF-8, which not every name on disk is.
        with _SoundFile(os.fsencode(place) if isinstance(place, str) else place) as file:
            check_rate(file.samplerate, source)
            yield file
    except soundfile.SoundFileError as error:
        raise unusable(source, f"not readable as audio ({_reason(error)})") from error


def check_rate(rate: int, source: Source) -> None:
    """Refuse a sampling rate outside of :data:`~atr_moco_plugin.sample_rate.RATES`.

    Raises:
        InputError: naming the source.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise unusable(
            source, f"has a sampling rate of {rate} Hz, expected {RATES[0]} to {RATES[1]}"
        )


def read_header(source: Source, decoder: Decoder = "soundfile") -> tuple[int, int]:
    """What a file says of itself, and whether it is complete, without decoding all of it.

    Args:
        source: a file or a part of one.
        decoder: the one that is to decode it.

    Returns:
        Its samples (an estimate where the format has no number) and their rate in Hz.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is not readable as audio, truncated, or a WAV with more than it says.
    """
    if decoder == "torchcodec":
        return _header_of_torchcodec(source)
    with opened(source) as file:
        check_complete(file, source)
        return file.frames, file.samplerate


def _header_of_torchcodec(source: Source) -> tuple[int, int]:
    try:
        decoder = _torchcodec().AudioDecoder(open_source(source))
        rate, seconds = decoder.metadata.sample_rate, decoder.metadata.duration_seconds
        # A lossy format's header counts what the encoder has added: too much for a short file.
        if rate is not None and seconds is not None and seconds > 1:
            check_rate(rate, source)
            end = decoder.get_samples_played_in_range(seconds - TOLERANCE)
            if end.data.shape[1]:
                return int(seconds * rate), rate
    except RuntimeError:
        pass  # FFmpeg's estimate of the length, or damage: decoding tells
    whole, rate = read_with_torchcodec(source)
    return len(whole), rate


def read_frames(
    file: soundfile.SoundFile, source: Source, start: int = 0, stop: int | None = None
) -> NDArray[np.float32]:
    """Decode samples ``start`` to ``stop`` of every channel, averaged over the channels.

    What lies before ``start`` is skipped by a seek where that is exact, else by decoding it. Memory
    is taken for what is there, not for what the header says.

    Args:
        file: the open file; at its beginning if it cannot seek.
        source: for messages.
        start: first sample.
        stop: one after the last; ``None`` reads to the end, at most :data:`MAX_HOURS`.

    Returns:
        ``[stop - start]`` float32, fewer where the file ends before.

    Raises:
        InputError: if samples are NaN, infinite or integers that were not scaled, or the file is
            damaged or too long.
    """
    limit = stop if stop is not None else int(MAX_HOURS * 3600 * min(file.samplerate, 48_000)) + 1
    mono = list(frame_blocks(file, source, start, limit))
    if stop is None and start + sum(map(len, mono)) == limit:
        raise InputError(
            f"{source}: lasts more than {limit / file.samplerate / 3600:.2g} hours, too long to "
            "be read whole; cut it into shorter files"
        )
    if len(mono) == 1:  # most files, which need no copy
        return mono[0]
    return np.concatenate(mono) if mono else np.zeros(0, np.float32)


def frame_blocks(
    file: soundfile.SoundFile,
    source: Source,
    start: int = 0,
    stop: int | None = None,
    mix: Mix | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Decode as :func:`read_frames` does, block after block, however long the file is.

    Args:
        file: the open file; at its beginning if it cannot seek.
        source: for messages.
        start: first sample.
        stop: one after the last; ``None`` reads to the end.
        mix: what is yielded of the channels; ``None`` is :func:`average`.

    Yields:
        ``[n]`` float32, n at least 1; together they are what :func:`read_frames` returns.

    Raises:
        InputError: if the file is damaged; what ``mix`` raises, as :func:`average` does.
    """
    mix = mix or average
    rows = max(1, _BLOCK // file.channels)
    position = start if file.subtype.startswith(_EXACT_SEEK) else 0
    try:
        if file.seekable():  # in GSM 6.10 and G.721, libsndfile reads forward alone
            file.seek(position)
        while stop is None or position < stop:
            most = rows if stop is None else min(rows, stop - position)
            frames = file.read(most, dtype="float32", always_2d=True)
            if not len(frames):
                break
            position += len(frames)
            if position > start:
                wanted = frames[max(0, len(frames) - (position - start)) :]
                yield mix(wanted, source)
    except soundfile.SoundFileError as error:
        raise unusable(
            source, f"is damaged after {position / file.samplerate:.3f} s ({_reason(error)})"
        ) from error


def average(frames: NDArray[np.float32], source: Source) -> NDArray[np.float32]:
    """Average ``[n, channels]`` over the channels.

    Raises:
        InputError: if there are NaN or infinite samples, or integers that were not scaled.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        # The mean of one channel is the channel, but takes a third as long as decoding a WAV.
        mono = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)
        mono = np.ascontiguousarray(mono, dtype=np.float32)
    check_samples(mono, source)
    return mono


def read_with_torchcodec(source: Source, mix: Mix | None = None) -> tuple[NDArray[np.float32], int]:
    """Decode a whole file with FFmpeg.

    Returns:
        What ``mix`` makes of the channels, by default their average ``[samples]`` float32, and the
        rate in Hz.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if torchcodec is not installed, or the file cannot be used.
    """
    decoders = _torchcodec()
    try:
        samples = decoders.AudioDecoder(open_source(source)).get_all_samples()
    except RuntimeError as error:
        raise unusable(source, f"not readable as audio ({_reason(error)})") from error
    check_rate(samples.sample_rate, source)
    return (mix or average)(samples.data.numpy().T, source), samples.sample_rate


def _torchcodec() -> Any:
    # Imported by name and when asked for: it is optional, and loads FFmpeg's libraries.
    try:
        return importlib.import_module("torchcodec.decoders")
    except ImportError as error:
        raise InputError(
            f"decoder 'torchcodec' needs the package torchcodec ({_reason(error)}); install the "
            "version made for this PyTorch, or use decoder 'soundfile'"
        ) from error
    except (RuntimeError, OSError) as error:
        raise InputError(
            "decoder 'torchcodec' cannot load its libraries; install FFmpeg's shared libraries "
            "(versions 4 to 7) and the torchcodec made for this PyTorch, or use decoder 'soundfile'"
        ) from error


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", "") or str(error)
    lines = text.strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
