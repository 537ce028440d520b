"""How audio of a data set is read: at which rate, with which decoder, through which cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.config import Config
from atr_moco_plugin.data.audio.cache import (
    Packed,
    entry_path,
    keyed_path,
    pack,
    read_entry,
    unpack,
    write_entry,
)
from atr_moco_plugin.data.audio.decode import Decoder, check_decoder
from atr_moco_plugin.data.audio.read import read_audio, window
from atr_moco_plugin.data.audio.scale import MAX_PEAK, check_samples
from atr_moco_plugin.data.audio.source import FileSource
from atr_moco_plugin.sample_rate import check_sample_rate


@dataclass(frozen=True)
class AudioReader(Config):
    """Reads audio files at one sampling rate; called with a clip's ``source``.

    Attributes:
        sample_rate: of the waveforms in Hz: the ``sample_rate`` of the audio encoder.
        decoder: see :mod:`atr_moco_plugin.data.audio.decode`.
        cache_dir: folder for decoded audio, see :mod:`atr_moco_plugin.data.audio.cache`; ``None``
            decodes every time. With a folder, a clip within full scale is rounded to 16 bits, the
            first time too, so that a batch does not depend on what the folder already holds.

    Raises:
        InputError: if the rate is none, or the decoder is unknown or cannot be loaded.
    """

    sample_rate: int
    decoder: Decoder = "soundfile"
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sample_rate(self.sample_rate, "an AudioReader")
        check_decoder(self.decoder)

    def __call__(
        self,
        source: FileSource,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> NDArray[np.float32]:
        """The waveform of ``source``, ``[n]`` float32 mono at :attr:`sample_rate`.

        Arguments and errors are those of :func:`~atr_moco_plugin.data.audio.read.read_audio`.
        """
        if self.cache_dir is None:
            return read_audio(source, self.sample_rate, samples, generator, decoder=self.decoder)
        packed = self._packed(source, self.cache_dir)
        if samples is not None:
            start, stop = window(packed.shape[0], samples, generator)
            packed = packed[start:stop]
        waveform = unpack(packed)
        # An earlier release has kept integers that were not scaled. Resampled, what was within the
        # limit may be a little beyond it.
        if packed.dtype != np.int16:
            check_samples(waveform, source, most=2 * MAX_PEAK)
        return waveform

    def kept(self, key: str, render: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What ``render`` returns, kept in :attr:`cache_dir` as decoded audio is; rendered each
        time without a folder.

        Args:
            key: all that decides about the samples, but for the rate.
            render: makes the waveform, ``[n]`` float32 at :attr:`sample_rate`.
        """
        if self.cache_dir is None:
            return render()
        return unpack(self._kept(keyed_path(self.cache_dir, key, str(self.sample_rate)), render))

    def _packed(self, source: FileSource, folder: Path) -> Packed:
        path = entry_path(folder, source, self.decoder, str(self.sample_rate))
        return self._kept(path, lambda: read_audio(source, self.sample_rate, decoder=self.decoder))

    def _kept(self, path: Path, read: Callable[[], NDArray[np.float32]]) -> Packed:
        packed = read_entry(path)
        if packed is None:
            packed = pack(read(), exact=False)
            write_entry(path, packed)
        return packed
