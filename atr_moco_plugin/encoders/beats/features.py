"""What the BEATs encoder computes once for itself and a momentum copy."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BeatsFeatures(NamedTuple):
    """Clips as the encoder's input.

    Attributes:
        fbank: ``[B, frames, 128]`` normalised features.
        mask: ``[B, T]`` bool, ``True`` at the valid tokens of each row, on the same device.
        padded: Whether a row has invalid tokens. The host knows it without a wait for the device.
    """

    fbank: Tensor
    mask: Tensor
    padded: bool


class BeatsStates(NamedTuple):
    """Clips after the lowest layers, which are frozen.

    Attributes:
        states: ``[B, T, width]``.
        mask: ``[B, T]`` bool, as of :class:`BeatsFeatures`.
        padded: as of :class:`BeatsFeatures`.
        layers: how many layers they have been through.
    """

    states: Tensor
    mask: Tensor
    padded: bool
    layers: int
