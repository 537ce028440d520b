"""Weights files of others, read without running code or taking more memory than they have bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError


def read_torch(path: Path, *, mmap: bool = False) -> Any:
    """What ``torch.save`` wrote: tensors and plain Python values alone, on the CPU.

    Args:
        path: the file.
        mmap: map it into memory, so that a tensor is read when it is used.

    Raises:
        Exception: of nearly any kind, for a file that is damaged, foreign, or holds more than that.
        ValueError: for an archive that is larger inside than it is.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch.save compresses nothing, but torch.load would inflate whatever is compressed.
            if sum(item.file_size for item in archive.infolist()) > path.stat().st_size:
                raise InputError("it holds more bytes than it has")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def one_line(name: str) -> str:
    """A name that a file gives, for a message: control characters and the like as escapes."""
    return repr(name)[1:-1]


def is_weights(value: object) -> bool:
    """Whether a value is what a parameter can be loaded from: a dense tensor of numbers that are
    there (not sparse, quantised or complex, nor a shape without numbers)."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
    )
