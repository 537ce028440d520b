"""What is kept of one clip or one caption once its encoder stands still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError


class Output(NamedTuple):
    """What a frozen encoder makes of one clip or caption.

    Attributes:
        pooled: ``[width]`` float32, what pooling makes of the tokens; ``None`` where it is not
            kept.
        states: ``[n, width]`` float16, the valid tokens alone; ``None`` where they are not kept.
    """

    pooled: NDArray[np.float32] | None
    states: NDArray[np.float16] | None


@dataclass(frozen=True)
class Stage:
    """Where cached outputs enter a tower.

    Attributes:
        pooled: after pooling, which then has no weights of its own.
        tokens: after the encoder, for a matching head or a pooling that trains.
    """

    pooled: bool
    tokens: bool

    def __str__(self) -> str:
        parts = ["pooled (float32)"] * self.pooled + ["tokens (float16)"] * self.tokens
        return " and ".join(parts)

    def covers(self, needed: Stage) -> bool:
        """Whether outputs of this stage have all that ``needed`` asks for."""
        return self.pooled >= needed.pooled and self.tokens >= needed.tokens

    def num_bytes(self, rows: int, tokens: int, width: int) -> int:
        """Bytes of that many outputs with so many tokens in all."""
        return self.pooled * rows * width * 4 + self.tokens * tokens * width * 2


def to_float16(states: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Tokens as they are kept: in float16, with a relative error of 2**-11 at most (2**-25 absolute
    below 6e-5).

    Args:
        states: ``[n, width]`` float32.
        name: of the clip or caption, for messages.

    Raises:
        InputError: if a number is not finite or beyond float16.
    """
    check_finite(states, name)
    largest = float(np.abs(states).max(initial=0.0))
    if largest > float(np.finfo(np.float16).max):
        raise InputError(
            f"{name}: the encoder's tokens reach {largest:.3g}, more than float16 holds (65,504): "
            "train without `dataset.cache_embeddings`, or with a criterion that has no matching "
            "head"
        )
    return states.astype(np.float16)


def check_finite(numbers: NDArray[np.float32], name: str) -> None:
    """Refuse an output that is not finite.

    Raises:
        InputError: naming the clip or caption.
    """
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{name}: the frozen encoder makes NaN or infinite numbers of it: check its weights, "
            "or leave it out"
        )
