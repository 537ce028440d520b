"""What encoders return: token states with the mask of the valid ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
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
        states: ``[B, L, width]`` float, one vector a token; column 0 is ``[CLS]``. ``None`` where
            the matching head reads none (``needs_text_states``).
        mask: ``[B, L]`` bool, ``True`` where the token is of the caption and not padding.
        input_ids: ``[B, L]`` int64, the ids the states were computed from.
    """

    states: Tensor | None
    mask: Tensor
    input_ids: Tensor


TokensT = TypeVar("TokensT", AudioTokens, TextTokens)


def valid_first(counts: Tensor, length: int) -> Tensor:
    """Mask of rows whose first tokens are valid.

    Args:
        counts: ``[B]`` integer, valid tokens of each row.
        length: tokens of every row.

    Returns:
        ``[B, length]`` bool on the device of ``counts``.
    """
    return torch.arange(length, device=counts.device) < counts[:, None]


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a tensor, some of them several times, with the same gradient in every run.

    The gradients of a row's copies are added up, and float sums depend on their order. On a CPU
    ``index_select`` adds in the order of ``rows`` and ``x[rows]`` as threads come to it. On CUDA it
    is the other way round: ``index_select`` adds with atomics, ``x[rows]`` sorts first.

    Args:
        x: ``[N, ...]``.
        rows: ``[P]`` int64 on the device of ``x``.

    Returns:
        ``[P, ...]``.
    """
    return x.index_select(0, rows) if x.device.type == "cpu" else x[rows]


def map_tokens(change: Callable[[Tensor], Tensor], tokens: TokensT) -> TokensT:
    """Tokens with each of their tensors changed; absent states stay absent."""
    changed = [None if x is None else change(x) for x in tokens]
    return type(tokens)(*changed)  # type: ignore[arg-type]  # only states may be absent


def take_tokens(tokens: TokensT, rows: Tensor) -> TokensT:
    """Some rows of all tensors of tokens, see :func:`take_rows`."""
    return map_tokens(lambda x: take_rows(x, rows), tokens)
