"""What encoders return: token states with the mask of the valid ones."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AudioTokens(NamedTuple):
    """Audio encoder output.

    Attributes:
        states: ``[B, T, width]`` float, one vector a token.
        mask: ``[B, T]`` bool, ``True`` where the token is of the clip and not padding.
    """

    states: Tensor
    mask: Tensor


class TextTokens(NamedTuple):
    """Text encoder output.

    Attributes:
        states: ``[B, L, width]`` float, one vector a token; column 0 is ``[CLS]``.
        mask: ``[B, L]`` bool, ``True`` where the token is of the caption and not padding.
        input_ids: ``[B, L]`` int64, the ids the states were computed from.
    """

    states: Tensor
    mask: Tensor
    input_ids: Tensor
