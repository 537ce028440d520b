"""What weights files of others hold."""

from __future__ import annotations

import torch
from torch import Tensor


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
