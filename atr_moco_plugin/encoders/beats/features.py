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
        kept: ``[K]`` int64 indices of the tokens that the layers see, increasing, on the same
            device, from :meth:`BeatsEncoder.draw_patches`; ``None`` for all.
    """

    fbank: Tensor
    mask: Tensor
    padded: bool
    kept: Tensor | None = None


class BeatsStates(NamedTuple):
    """Clips after the lowest layers, which are frozen.

    Attributes:
        states: ``[B, T, width]``, of every token.
        mask: ``[B, T]`` bool, as of :class:`BeatsFeatures`.
        padded: as of :class:`BeatsFeatures`.
        layers: how many layers they have been through.
        kept: as of :class:`BeatsFeatures`: what the layers above see.
    """

    states: Tensor
    mask: Tensor
    padded: bool
    layers: int
    kept: Tensor | None = None


def seen(inputs: BeatsFeatures | BeatsStates) -> Tensor:
    """Mask ``[B, K]`` of the tokens that the layers see: all, or those that are kept."""
    mask, kept = inputs.mask, inputs.kept
    return mask if kept is None else mask.index_select(1, kept)
