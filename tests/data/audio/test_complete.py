"""Whether a WAV file has more than its header says."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from atr_moco_plugin.data.audio.decode import read_header
from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.data.audio.source import FileSlice
from atr_moco_plugin.errors import InputError

SAMPLE_RATE = 16_000
NOISE = np.random.default_rng(0).integers(-9_000, 9_000, SAMPLE_RATE, np.int16).tobytes()
"""A second."""


def wav(
    data: bytes, said: int, behind: bytes = b"", order: str = "<", before: bytes = b""
) -> bytes:
    """A WAV of 16 bits and one channel whose header says that it has ``said`` bytes of samples."""
    name = b"RIFF" if order == "<" else b"RIFX"
    head = struct.pack(f"{order}HHIIHH", 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    chunks = b"WAVE" + chunk(b"fmt ", head, order) + before
    chunks += b"data" + struct.pack(f"{order}I", said) + data + behind
    return name + struct.pack(f"{order}I", len(chunks) % 2**32) + chunks


def chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content)) + content


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("behind", [b"", chunk(b"LIST", bytes(100))])
def test_a_wav_that_is_longer_than_its_header_says_is_refused(
    tmp_path: Path, order: str, behind: bytes
) -> None:
    """As a recorder leaves it that has lost its power: a part was read without a word."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(NOISE * 3, len(NOISE), behind, order))
    said = (
        r"a.wav: its header says 1.0 s and the file has bytes for 3.0 s: repair the header, or "
        "save it as RF64 or FLAC$"
    )
    for read in (read_header, lambda path: read_audio(path, SAMPLE_RATE, 4_000)):
        with pytest.raises(InputError, match=said):
            read(path)
    with pytest.raises(InputError, match="has bytes for 3.0 s"):
        read_header(FileSlice(path, 0, path.stat().st_size, "a.wav"))


@pytest.mark.parametrize("said", [60 * 2 * SAMPLE_RATE, 2**32 - 1, 2**32 - 37, 2**31 - 1])
def test_a_wav_of_more_than_4_gib_whose_size_has_wrapped_is_refused(
    tmp_path: Path, said: int
) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(wav(b"", said))
        file.truncate(44 + 2**32 + 59 * 2 * SAMPLE_RATE)  # takes no room on the disk
        file.seek(0, 2)
        file.write(NOISE)
    with pytest.raises(InputError, match=r"says \S+ s and the file has bytes for 134,277.7 s"):
        read_header(path)


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize(
    "behind",
    [
        chunk(b"JUNK", NOISE) + chunk(b"LIST", NOISE[:99]) + b"\0" + chunk(b"id3 ", NOISE),
        chunk(b"bext", NOISE[:4999]) + chunk(b"PAD ", bytes(9_999)),  # without bytes of padding
        chunk(b"id3 ", NOISE)[:-9_000],  # cut off
        b"ID3\x03" + NOISE,  # no chunk
        bytes(65_536),  # to a multiple of the disk's blocks
        b"\xff" * 2**21,
        chunk(b"iXML", NOISE)[:-1],  # counts a byte of padding that is not there
        chunk(b"LIST", NOISE[:99]) + b"\x07" + chunk(b"id3 ", NOISE),
        b"elm\0" + NOISE[:20_000],  # what a program left
        NOISE[:3_000],  # less than a tenth of a second
    ],
)
def test_what_stands_behind_the_samples_of_a_wav_does_not_count(
    tmp_path: Path, behind: bytes, missing: int
) -> None:
    path = tmp_path / "a.wav"
    before = chunk(b"bext", NOISE)
    data = NOISE[: len(NOISE) - missing]
    path.write_bytes(wav(data, len(data), b"\0" * missing + behind, before=before))
    assert read_header(path)[0] == SAMPLE_RATE - missing


def test_a_wav_whose_header_was_never_filled_in_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    content = bytearray(wav(NOISE, 0))
    content[4:8] = struct.pack("<I", 8)
    path.write_bytes(content)
    assert read_header(path)[0] == SAMPLE_RATE
