"""How a data set of files comes to its waveforms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.audio import read_audio, window
from atr_moco_plugin.data.cache import Packed, entry_path, pack, read_entry, unpack, write_entry
from atr_moco_plugin.data.decode import Decoder, check_decoder

if TYPE_CHECKING:
    from atr_moco_plugin.data.dataset import Clip


@dataclass(frozen=True)
class AudioReader:
    """Reads ``clip.source``, a :data:`~atr_moco_plugin.data.source.Source`.

    Attributes:
        decoder: see :mod:`atr_moco_plugin.data.decode`.
        cache_dir: folder for decoded audio, see :mod:`atr_moco_plugin.data.cache`; ``None`` decodes
            every time. A clip within full scale is then rounded to 16 bits, when it is first
            decoded too, so that a batch does not depend on what is already there.

    Raises:
        ValueError: if the decoder is unknown or cannot be loaded.
    """

    decoder: Decoder = "soundfile"
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        check_decoder(self.decoder)

    def __call__(self, clip: Clip) -> NDArray[np.float32]:
        """The clip's waveform, ``[samples]`` float32 at 16 kHz mono.

        Raises:
            FileNotFoundError, ValueError: as :func:`~atr_moco_plugin.data.audio.read_audio`.
        """
        if self.cache_dir is None:
            return read_audio(clip.source, decoder=self.decoder)
        return unpack(self._kept(clip, self.cache_dir))

    def crop(
        self, clip: Clip, samples: int, generator: torch.Generator | None = None
    ) -> NDArray[np.float32]:
        """At most ``samples`` samples of the clip, without decoding what is not needed.

        Arguments and errors are those of :func:`~atr_moco_plugin.data.audio.read_audio`.
        """
        if self.cache_dir is None:
            return read_audio(clip.source, samples, generator, decoder=self.decoder)
        kept = self._kept(clip, self.cache_dir)
        start, stop = window(kept.shape[0], samples, generator)
        return unpack(kept[start:stop])

    def _kept(self, clip: Clip, folder: Path) -> Packed:
        path = entry_path(Path(folder), clip.source, self.decoder)
        kept = read_entry(path)
        if kept is None:
            kept = pack(read_audio(clip.source, decoder=self.decoder), exact=False)
            write_entry(path, kept)
        return kept
