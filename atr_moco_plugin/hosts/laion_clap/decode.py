"""Audio of LAION's tars without torchcodec."""

from __future__ import annotations

import io
from importlib.util import find_spec

import soundfile
import torch
from torch import Tensor

_EXTENSIONS = ("flac", "wav", "ogg", "mp3")


def needed() -> bool:
    """Whether torchaudio may have nothing to load files with: from 2.9 on it is torchcodec, which
    needs FFmpeg's libraries and is a package of its own."""
    return find_spec("torchcodec") is None


def soundfile_audio(key: str, data: bytes) -> tuple[Tensor, int] | None:
    """What ``webdataset.torch_audio`` returns, decoded by soundfile.

    Args:
        key: name of the member; what follows its last dot says what it is.
        data: the encoded file.

    Returns:
        ``[channels, samples]`` float32 in [-1, 1] and the sampling rate, or ``None`` for what is
        no audio.
    """
    if key.rpartition(".")[2].lower() not in _EXTENSIONS:
        return None
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate
