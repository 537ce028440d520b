"""Which part of a long recording scenes are made of, and what is heard of it at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.decode import (
    Decoder,
    average,
    opened,
    read_header,
    read_with_torchcodec,
)
from atr_moco_plugin.data.audio.source import Segment, file_marks, stat_file
from atr_moco_plugin.errors import InputError

_BLOCK = 0.5  # seconds


def mono_blocks(path: str, decoder: Decoder) -> Iterator[NDArray[np.float32]]:
    """A file in blocks of half a second, averaged over its channels, at its own rate.

    Yields:
        ``[n]`` float32; the last may be shorter.

    Raises:
        FileNotFoundError, InputError: if it cannot be decoded, perhaps after some blocks.
    """
    if decoder == "torchcodec":
        whole, rate = read_with_torchcodec(path)
        size = max(1, round(_BLOCK * rate))
        yield from (whole[start : start + size] for start in range(0, len(whole), size))
        return
    with opened(path) as file:
        size = max(1, round(_BLOCK * file.samplerate))
        for block in file.blocks(size, dtype="float32", always_2d=True):
            yield average(block, path)


def loud_part(
    path: str, seconds: float, generator: torch.Generator, decoder: Decoder
) -> str | Segment:
    """A drawn part of a recording that is longer than asked, else all of it.

    Among the parts with at least half the energy of the loudest one, each is equally likely. Parts
    with NaN, or behind what cannot be decoded, are not among them, as long as there are others. The
    file is decoded once a process for this.

    Args:
        path: the file.
        seconds: how long the part is.
        generator: draws it.
        decoder: what decodes the file.

    Raises:
        FileNotFoundError, InputError: if it is not readable as audio.
    """
    frames, rate = read_header(path, decoder)
    if frames <= seconds * rate:
        return path
    energies = _energies(path, file_marks(stat_file(path, path)), decoder)
    blocks = round(seconds / _BLOCK)
    if len(energies) <= blocks:  # the header had an estimate, or there is damage: any part
        return path
    parts = _sums(np.nan_to_num(energies), blocks)
    whole = _sums(np.isnan(energies).astype(np.float64), blocks) == 0
    if whole.any():
        parts[~whole] = -1.0
    good = np.flatnonzero(parts >= parts.max() / 2)
    start = _BLOCK * int(good[int(torch.randint(len(good), (), generator=generator))])
    start = min(start, frames / rate - seconds)  # a rate may have no whole number in half a second
    return Segment(path, start, start + seconds)


@lru_cache(maxsize=4096)
def _energies(path: str, marks: object, decoder: Decoder) -> NDArray[np.float64]:
    """Energy of each whole block of a file, NaN where samples are, up to what cannot be decoded;
    ``marks`` are those of its state on the disk."""
    if decoder == "torchcodec":
        try:
            blocks = list(mono_blocks(path, decoder))
        except InputError:
            return np.zeros(0)
        return np.array([_energy(x) for x in blocks if len(x) == len(blocks[0])])
    energies = []
    with opened(path) as file:
        size = max(1, round(_BLOCK * file.samplerate))
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
                if len(block) < size:
                    break
                energies.append(_energy(average(block, path)))
            except InputError:  # samples that are NaN
                energies.append(math.nan)
            except soundfile.SoundFileError:
                break
    return np.array(energies)


def _energy(block: NDArray[np.float32]) -> float:
    return float(np.square(block, dtype=np.float64).sum())


def _sums(values: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """The sum of each run of so many values."""
    total: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(values)])
    sums: NDArray[np.float64] = total[number:] - total[:-number]
    return sums
