"""When the queue enters the loss, and with how many rows.

While weights drift fast, as random ones do at first, old rows of a queue differ from fresh ones by
their age more than by their content, and the loss learns to tell the age. Rows that tell it stay
out: the "slow drift" that XBM (Wang et al. 2020) waits for, measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion.config import MocoAtcConfig
from atr_moco_plugin.distributed import gather_numbers, process_index
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank.age import GROUPS, age_share

ASK_EVERY = 20
"""Optimizer steps between two looks at the queue; until then also after 1, 2, 4, 8 and 16."""

THRESHOLD = 0.05
"""Share of the queue's variance that its age may explain."""

LEAST = 4 * GROUPS
"""Rows below which the share is noise, so that fewer are not asked for."""


class QueueStart(nn.Module):
    """How many of the youngest rows of the queues are in the loss.

    With a number of steps none is before that step and all are from it on. With ``auto`` as many
    are, all, half, a quarter..., as keep :func:`~atr_moco_plugin.rank.age.age_share` of both queues
    under :data:`THRESHOLD`. That is asked over the whole run, and decided on the first process.

    Args:
        config: of the criterion.
    """

    rows: Tensor

    def __init__(self, config: MocoAtcConfig) -> None:
        super().__init__()
        self._warmup = config.queue_warmup_steps
        # Youngest rows that may be used; a queue that is used whole stays so while it fills.
        self.register_buffer("rows", torch.zeros(1, dtype=torch.int64))
        self._rows = 0  # mirrors the buffer, so that no step waits for the device
        self._warned = False

    def usable(self, step: int, queue: EmbeddingQueue) -> int:
        """Youngest rows of a queue that are in the loss.

        Args:
            step: optimizer steps made.
            queue: one of the two.
        """
        if self._warmup == "auto":
            return min(self._rows, len(queue))
        return len(queue) if step >= self._warmup else 0

    def look(
        self,
        step: int,
        total_steps: int | None,
        queues: Mapping[str, EmbeddingQueue],
        device: torch.device,
    ) -> None:
        """Decide anew where ``auto`` is due to, after an optimizer step. Every process calls it.

        Args:
            step: optimizer steps made.
            total_steps: of the run; a queue that is out after half of them is warned of.
            queues: modality to queue; row k of all is the same item.
            device: where the process group exchanges tensors.
        """
        due = step % ASK_EVERY == 0 or (step < ASK_EVERY and step.bit_count() == 1)
        if self._warmup != "auto" or not due:
            return
        # The queues are equal on every process, but what is computed of them only up to rounding.
        found = steady_rows(queues) if process_index() == 0 else 0
        ((rows,), *_) = gather_numbers([found], device)
        self._set(rows)
        late = total_steps is not None and step >= total_steps / 2
        if rows == 0 and late and not self._warned and any(map(len, queues.values())):
            self._warned = True
            warnings.warn(
                f"The queue is still out of the loss after {step:,} of {total_steps:,} steps: even "
                "its youngest rows tell their age. Either the weights drift too fast, so raise "
                "`momentum` or lower the learning rate, or the data come in an order, such as by "
                "class: shuffle them, or set `queue_warmup_steps` to a number of steps.",
                stacklevel=2,
            )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Back to the initial state: nothing is known of the queues."""
        self._set(0)

    def _set(self, rows: int) -> None:
        self._rows = rows
        self.rows.fill_(rows)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Older checkpoints have none.
        state_dict.setdefault(f"{prefix}rows", torch.zeros_like(self.rows))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._rows = int(self.rows)


def steady_rows(queues: Mapping[str, EmbeddingQueue]) -> int:
    """As many of the youngest rows as do not tell their age: all, half, a quarter... or none.

    Args:
        queues: of one length.

    Returns:
        All the rows that the queues can ever hold where their present rows are steady.
    """
    n = min(map(len, queues.values()), default=0)
    whole = n
    while n >= LEAST:
        shares = (age_share(queue.newest(n)) for queue in queues.values())
        if all(share <= THRESHOLD for share in shares):
            return max(queue.max_size for queue in queues.values()) if n == whole else n
        n //= 2
    return 0
