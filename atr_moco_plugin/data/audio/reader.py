"""How a data set of files comes to its waveforms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.config import Config
from atr_moco_plugin.data.audio.cache import (
    Packed,
    entry_path,
    pack,
    read_entry,
    unpack,
    write_entry,
)
from atr_moco_plugin.data.audio.decode import Decoder, check_decoder
from atr_moco_plugin.data.audio.read import read_audio, window
from atr_moco_plugin.sample_rate import check_sample_rate

if TYPE_CHECKING:
    from atr_moco_plugin.data.clips import Clip


@dataclass(frozen=True)
class AudioReader(Config):
    """Reads ``clip.source``, a :data:`~atr_moco_plugin.data.audio.source.Source`.

    Attributes:
        sample_rate: of the waveforms in Hz: the ``sample_rate`` of the audio encoder.
        decoder: see :mod:`atr_moco_plugin.data.audio.decode`.
        cache_dir: folder for decoded audio, see :mod:`atr_moco_plugin.data.audio.cache`; ``None`` decodes
            every time. A clip within full scale is then rounded to 16 bits, when it is first
            decoded too, so that a batch does not depend on what is already there.

    Raises:
        ValueError: if the rate is none, or the decoder is unknown or cannot be loaded.
    """

    sample_rate: int
    decoder: Decoder = "soundfile"
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sample_rate(self.sample_rate, "an AudioReader")
        check_decoder(self.decoder)

    def __call__(self, clip: Clip) -> NDArray[np.float32]:
        """The clip's waveform, ``[samples]`` float32 mono at :attr:`sample_rate`.

        Raises:
            FileNotFoundError, ValueError: as :func:`~atr_moco_plugin.data.audio.read.read_audio`.
        """
        if self.cache_dir is None:
            return read_audio(clip.source, self.sample_rate, decoder=self.decoder)
        return unpack(self._kept(clip, self.cache_dir))

    def crop(
        self, clip: Clip, samples: int, generator: torch.Generator | None = None
    ) -> NDArray[np.float32]:
        """At most ``samples`` samples of the clip, without decoding what is not needed.

        Arguments and errors are those of :func:`~atr_moco_plugin.data.audio.read.read_audio`.
        """
        if self.cache_dir is None:
            return read_audio(
                clip.source, self.sample_rate, samples, generator, decoder=self.decoder
            )
        kept = self._kept(clip, self.cache_dir)
        start, stop = window(kept.shape[0], samples, generator)
        return unpack(kept[start:stop])

    def _kept(self, clip: Clip, folder: Path) -> Packed:
        path = entry_path(Path(folder), clip.source, self.decoder, str(self.sample_rate))
        kept = read_entry(path)
        if kept is None:
            whole = read_audio(clip.source, self.sample_rate, decoder=self.decoder)
            kept = pack(whole, exact=False)
            write_entry(path, kept)
        return kept
