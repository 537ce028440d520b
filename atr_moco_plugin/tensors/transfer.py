"""From the host to the device, without a wait of the one for the other."""

from __future__ import annotations

from torch import Tensor
from torch import device as Device


def to_device(x: Tensor, device: Device) -> Tensor:
    """Copy a small tensor of the host to a device, behind what the device has still to do.

    Args:
        x: a tensor, which nobody changes afterwards.
        device: where to.

    Returns:
        ``x`` itself where it is there already.
    """
    # From memory that may be paged out, CUDA copies into a buffer of its own first and waits.
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
