"""When the queue enters the loss, and with how many rows.

While weights drift fast, as random ones do at first, old rows of a queue differ from fresh ones by
their age more than by their content, and the loss learns to tell the age. Rows that tell it stay
out: the "slow drift" that XBM (Wang et al. 2020) waits for, measured.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion.config import MocoAtcConfig
from atr_moco_plugin.distributed import gather_numbers, process_index
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank.age import GROUPS, age_share

ASK_EVERY = 10
"""Optimizer steps between two looks at the queue, and what a look is at least about."""

ENTER = 0.03
"""Share of the variance of rows that their age may explain when they enter the loss."""

LEAVE = 0.2
"""From this share on they leave it again. Every queue drifts a little when it has entered; where
the loss has learned to tell ages, the share goes beyond a half within twenty steps."""


class QueueStart(nn.Module):
    """How many of the youngest rows of the queues are in the loss.

    With a number of steps none is before that step and all are from it on. With ``auto`` a look at
    the queues every :data:`ASK_EVERY` steps finds as many of the youngest rows as are steady: all,
    half, a quarter..., where :func:`~atr_moco_plugin.rank.age.age_share` of both queues is at most
    :data:`ENTER`. Fewer than the rows of the steps between two looks, and of the ``1 / (1 - m)``
    steps that the averages remember, are none, since averages hide a drift over shorter spans, and
    a loss that has learned to tell ages tells them by less. What two looks in a row have found
    enters: weights that are about to drift may still be slow at the first one. This goes on over
    the whole run, so rows leave again whose share goes beyond :data:`LEAVE`.

    Args:
        config: of the criterion.
    """

    rows: Tensor

    def __init__(self, config: MocoAtcConfig) -> None:
        super().__init__()
        self._warmup = config.queue_warmup_steps
        self._config = config
        # Rows in the loss, and those that the last look would let in; all that a queue can ever
        # hold where it was all of them.
        self.register_buffer("rows", torch.zeros(2, dtype=torch.int64))
        self._rows = [0, 0]  # mirrors the buffer, so that no step waits for the device
        self._warned = False

    @property
    def waits(self) -> bool:
        """Whether the queue itself is asked."""
        return self._warmup == "auto"

    def usable(self, step: int, queue: EmbeddingQueue) -> int:
        """Youngest rows of a queue that are in the loss.

        Args:
            step: optimizer steps made.
            queue: one of the two.
        """
        if self._warmup == "auto":
            return min(self._rows[0], len(queue))
        return len(queue) if step >= self._warmup else 0

    def look(
        self, queues: Mapping[str, EmbeddingQueue], step: int, pairs: int, total_steps: int | None
    ) -> None:
        """Look at the queues where ``auto`` is due to, after an optimizer step. Every process
        calls it.

        Args:
            queues: modality to queue, of one length.
            step: optimizer steps made.
            pairs: of the step, over all processes.
            total_steps: of the run; a queue that is out after half of them is warned of.
        """
        if self._warmup != "auto":
            # Kept for a run that goes on with `auto`: its queue stays in until the next look.
            entered = [next(iter(queues.values())).max_size] * 2
            if step >= self._warmup and self._rows != entered:
                self._set(entered)
            return
        if step % ASK_EVERY:
            return
        # The queues are equal on every process, but what is computed of them only up to rounding.
        found = [0, 0]
        if process_index() == 0:
            found = [steady_rows(queues, self._least(pairs), most) for most in (ENTER, LEAVE)]
        ((enter, stay), *_) = gather_numbers(found, self.rows.device)
        used, before = self._rows
        self._set([max(min(enter, before), min(stay, used)), enter])
        late = total_steps is not None and step >= max(total_steps / 2, 2 * ASK_EVERY)
        if late and self._rows[0] == 0 and not self._warned and any(map(len, queues.values())):
            self._warned = True
            warnings.warn(
                f"The queue is out of the loss after {step:,} of {total_steps:,} steps, since its "
                "rows tell their age. Either the weights drift too fast, so raise `momentum` or "
                "lower the learning rate, or the data come in an order, such as by class: shuffle "
                "them, or set `queue_warmup_steps` to a number of steps.",
                stacklevel=2,
            )

    def check(self, total_steps: int | None) -> None:
        """Warn, once and before the first step, of a warm-up that the run does not outlast.

        Args:
            total_steps: of the run, where they are known.
        """
        never = self._warmup != "auto" and total_steps is not None and total_steps <= self._warmup
        if never and self._config.queue_size and not (self._warned or process_index()):
            self._warned = True
            warnings.warn(
                f"`queue_warmup_steps` is {self._warmup:,}, but the run has {total_steps:,} steps: "
                "the queue will never be in the loss. Lower it, set it to auto, train longer, or "
                "leave the queue out by `queue_size: 0`.",
                stacklevel=2,
            )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Back to the initial state: nothing is known of the queues."""
        self._set([0, 0])

    def _least(self, pairs: int) -> float:
        """Rows below which a drift does not show, in a run with so many pairs a step."""
        momentum = 0.0 if self._config.keys == "online" else self._config.momentum
        memory = 1 / (1 - momentum) if momentum < 1 else math.inf
        return max(
            ASK_EVERY * pairs, memory * (1 if self._config.momentum_per == "pair" else pairs)
        )

    def _set(self, rows: list[int]) -> None:
        self._rows = rows
        for i, value in enumerate(rows):
            self.rows[i].fill_(value)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._rows = self.rows.tolist()


def add_rows(state: dict[str, Any], prefix: str, start: QueueStart, queue: EmbeddingQueue) -> None:
    """For a state from before ``auto``: its queue counts as all in the loss, and leaves it at the
    next look by the rule, so that a run which goes on with it does not change without a word.

    Args:
        state: of a criterion, or weights alone, which have no steps.
        prefix: of the criterion's names.
        start: of the criterion that loads it.
        queue: of that criterion.
    """
    name, steps = f"{prefix}queue_start.rows", state.get(f"{prefix}num_steps")
    if name in state:
        return
    older = steps is not None and int(steps) > 0
    state[name] = torch.full_like(start.rows, queue.max_size if older else 0)
    if older and start.waits:
        warnings.warn(
            "`queue_warmup_steps` is auto, but the checkpoint is from before that option and does "
            "not say whether its queue was in the loss: all of it is until the next look at it.",
            stacklevel=2,
        )


def steady_rows(queues: Mapping[str, EmbeddingQueue], least: float, most: float) -> int:
    """As many of the youngest rows as do not tell their age: all, half, a quarter... or none.

    Args:
        queues: of one length.
        least: fewer are none, but for a full queue, which may be shorter.
        most: share of their variance that their age may explain.

    Returns:
        All the rows that the queues can ever hold where their present rows are steady.
    """
    queue = next(iter(queues.values()))
    whole = n = len(queue)
    while n >= max(min(least, queue.size), 2 * GROUPS):
        if all(age_share(x.newest(n)) <= most for x in queues.values()):
            return queue.max_size if n == whole else n
        n //= 2
    return 0
