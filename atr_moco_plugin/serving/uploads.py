"""Sounds that are sent to the server as a query: bounded in bytes and in length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from atr_moco_plugin.data.audio.complete import check_complete
from atr_moco_plugin.data.audio.decode import opened, read_frames
from atr_moco_plugin.data.audio.read import MIN_SECONDS, too_short
from atr_moco_plugin.data.audio.source import MemoryFile
from atr_moco_plugin.errors import InputError

MAX_BYTES = 32 * 2**20
"""Largest upload: three minutes of 16-bit stereo at 48 kHz."""

MAX_SECONDS = 300.0
"""Longest sound, at 48 kHz; at a higher rate accordingly less. A few megabytes of FLAC may hold
days of silence."""


async def read_body(request: Request, most: int = MAX_BYTES) -> bytes:
    """The body of a request; reading ends where there is too much of it.

    Raises:
        HTTPException: 413, where it has more than ``most`` bytes; 400, where it breaks off.
    """
    sentence = f"The file has more than {most // 2**20} MiB; send a shorter part of it."
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise HTTPException(413, sentence)
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > most:
                raise HTTPException(413, sentence)
    except ClientDisconnect as ex:  # the page breaks off a search when the next one begins
        raise HTTPException(400, "The file did not come in full.") from ex
    return bytes(content)


def read_sound(content: bytes, name: str) -> tuple[NDArray[np.float32], int]:
    """Decode an upload.

    Args:
        content: a WAV, FLAC, Ogg, MP3, ... file.
        name: what messages call it; never used as a path.

    Returns:
        ``[n]`` float32, averaged over the channels, and the rate in Hz.

    Raises:
        InputError: if it is no audio, damaged, too short to be encoded, lasts longer than
            :data:`MAX_SECONDS`, or has floats that are unscaled integers.
    """
    try:
        waveform, rate, limit = _decode(MemoryFile(content, name))
    except InputError as ex:
        problem = str(ex).partition("; ")[0]  # without the advice to someone with a data set
        raise InputError(f"{problem}; search with another file, such as a WAV") from ex
    if len(waveform) > limit:
        raise InputError(
            f"{name}: lasts more than {limit / rate:g} s; search with a shorter part of it"
        )
    if too_short(len(waveform), rate):
        raise InputError(
            f"{name}: lasts {len(waveform) / rate:.3f} s; search with a sound of at least "
            f"{MIN_SECONDS} s"
        )
    return waveform, rate


def _decode(source: MemoryFile) -> tuple[NDArray[np.float32], int, int]:
    """Waveform, rate, and the most samples it may have; one more than those are read."""
    with opened(source) as file:
        check_complete(file, source)
        limit = int(MAX_SECONDS * min(file.samplerate, 48_000))
        return read_frames(file, source, 0, limit + 1), file.samplerate, limit
