"""The factor of the momentum copies in each optimizer step."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion.config import MocoAtcConfig
from atr_moco_plugin.distributed import process_index
from atr_moco_plugin.errors import InputError

OF_A_PAIR, OF_A_STEP = 0.998, 0.9
"""A factor of a pair below the first that leaves a step less than the second was probably meant for
a step: 0.95 is 0.19 in a step of 32."""


def cosine_momentum(momentum: float, step: int, total_steps: int) -> float:
    """``m_k = 1 - (1 - m) (cos(pi k / K) + 1) / 2``, from m in the first step to 1 at the end
    (BYOL, Grill et al. 2020, section 3.3).

    Args:
        momentum: m.
        step: k, optimizer steps made before this one; beyond K the factor stays 1.
        total_steps: K.

    Example:
        >>> [round(cosine_momentum(0.99, step, 100), 4) for step in (0, 50, 100)]
        [0.99, 0.995, 1.0]
    """
    progress = min(1.0, step / max(1, total_steps))
    return 1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2


class MomentumFactor(nn.Module):
    """The options ``momentum``, ``momentum_schedule`` and ``momentum_per`` as a factor for each
    step, with the pairs that the step has seen.

    Args:
        config: of the criterion.
    """

    num_pairs: Tensor

    def __init__(self, config: MocoAtcConfig) -> None:
        super().__init__()
        self._config = config
        if config.keys == "online" and config.momentum != MocoAtcConfig.momentum:
            warnings.warn(
                "`keys` is online, so there are no momentum copies and `momentum`, which is "
                f"{config.momentum}, has no effect.",
                stacklevel=2,
            )
        # Pairs of all processes since the last optimizer step. Saved, since a state can be of the
        # middle of an accumulation; mirrored by an integer, so that no step waits for the device.
        self.register_buffer("num_pairs", torch.zeros(1, dtype=torch.int64))
        self._num_pairs = 0
        self._warned = False

    def is_known(self, total_steps: int | None) -> bool:
        """Whether the factors can be told; a schedule needs the length of the run.

        Args:
            total_steps: of the run, where they are known.
        """
        return self._config.momentum_schedule == "constant" or total_steps is not None

    def check(self, total_steps: int | None) -> None:
        """Refuse a schedule over a run of unknown length.

        Args:
            total_steps: of the run, where they are known.

        Raises:
            InputError: the schedule needs them.
        """
        if not self.is_known(total_steps):
            raise InputError(
                "`momentum_schedule` is cosine, which ends with the run, but the criterion does "
                "not know how long that is: set `criterion.total_steps = N` before the first step."
            )

    def saw(self, pairs: int) -> None:
        """Count the pairs of a training pass.

        Args:
            pairs: of all processes.
        """
        self._set(self._num_pairs + pairs)

    def at(self, step: int, total_steps: int | None) -> float:
        """The factor of the step that ends now.

        Args:
            step: optimizer steps made before it.
            total_steps: of the run, see :meth:`check`.
        """
        momentum = self._config.momentum
        if self._config.momentum_schedule == "cosine":
            self.check(total_steps)
            momentum = cosine_momentum(momentum, step, total_steps or 0)
        return momentum**self._num_pairs if self._config.momentum_per == "pair" else momentum

    def next_step(self) -> int:
        """The step was made, or left out: the next one has no pairs yet. Warns once of a factor of
        a pair that was meant for a step.

        Returns:
            Its pairs.
        """
        pairs, momentum = self._num_pairs, self._config.momentum
        short = 0 < momentum < OF_A_PAIR and momentum**pairs < OF_A_STEP
        if self._config.momentum_per == "pair" and short and not (self._warned or process_index()):
            self._warned = True
            warnings.warn(
                f"`momentum_per` is pair and `momentum` {momentum}, which is {momentum**pairs:.2g} "
                f"in a step of {pairs} pairs, a short memory. For 0.99 a step set `momentum` to "
                f"{round(0.99 ** (1 / pairs), 8)}.",
                stacklevel=2,
            )
        self._set(0)
        return pairs

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Back to the initial state."""
        self._set(0)

    def _set(self, pairs: int) -> None:
        self._num_pairs = pairs
        self.num_pairs.fill_(pairs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Older checkpoints have none: they knew factors of a step alone.
        state_dict.setdefault(f"{prefix}num_pairs", torch.zeros_like(self.num_pairs))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_pairs = int(self.num_pairs)
