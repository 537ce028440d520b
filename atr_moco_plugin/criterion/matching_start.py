"""When the matching loss begins: not before the embeddings tell a pair from any other.

A matching head learns nothing while the negatives that are drawn for it are no harder than any
others, and costs its pass all the same. So it waits until the momentum embeddings find an item's
own among eight. Of one query with n negatives in the global batch, r of them ahead of its own, the
probability to be first of eight is that of seven negatives drawn without the r::

    C(n - r, 7) / C(n, 7)

Its expectation is the same for every n of 7 and more, so the batch size does not matter. Where a
batch has only k < 7 negatives, the share m that is first of k + 1 counts as ``m^(7 / k)``, as if
negatives came one by one and no query were harder than another. That is the lower bound of the two
(Jensen), so the loss begins late and not early.

Nor does it begin before the last part of a run whose length is known. A step with the loss costs a
third more, and the head needs few of them: what it takes from the towers' steps is worth more
there (``benchmarks/negatives``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from atr_moco_plugin.distributed import broadcast_bool, process_index
from atr_moco_plugin.tensors.float32 import StaysFloat32, cosines

NEGATIVES = 7
"""An item of its own is looked for among itself and so many others."""

THRESHOLD = 0.75
"""The matching loss begins where the probability to be first of eight reaches this."""

LAST_PART = 0.4
"""Share of a run of known length that has the matching loss at most."""

DECIDE_EVERY = 10
"""Optimizer steps between two decisions. Process 0 makes them, and the host waits for it."""

KEPT = 0.98
"""What is left of a step's sums after each further one: the mean is over about 50 steps."""


def ranking_sums(a: Tensor, u: Tensor, positives: Tensor) -> Tensor:
    """How well items find their own, summed over the queries of both directions.

    Args:
        a: ``[N, d]`` unit-norm audio embeddings of the global batch.
        u: ``[N, d]`` unit-norm text embeddings, row by row of the same items.
        positives: ``[N, N]`` bool, symmetric; no negatives of each other.

    Returns:
        ``[3]`` float32: the probabilities to be first of k + 1, the k (the negatives, at most 7),
        and the number of queries that have negatives. What is not finite, and what is as near as
        the own item, is ahead of it, so that collapsed embeddings find nothing.
    """
    similarity = cosines(a.detach(), u.detach())
    own, negative = similarity.diagonal(), ~positives
    ahead = torch.cat(
        [
            (negative & ~(similarity < own[:, None])).sum(dim=1),
            (negative & ~(similarity < own[None, :])).sum(dim=0),
        ]
    )
    n = torch.cat([negative.sum(dim=1), negative.sum(dim=0)])
    k = n.clamp(max=NEGATIVES)
    drawn = torch.arange(NEGATIVES, device=a.device)
    left = (n[:, None] - drawn).clamp(min=1)
    not_ahead = (n - ahead)[:, None] - drawn
    factors = (not_ahead.clamp(min=0) / left).masked_fill(drawn >= k[:, None], 1.0)
    asked = n > 0
    return torch.stack([(factors.prod(dim=1) * asked).sum(), k.sum(), asked.sum()])


def first_of_eight(sums: Tensor) -> Tensor:
    """The probability that an item finds its own first among eight.

    Args:
        sums: ``[3]``, from :func:`ranking_sums`, added up over batches.

    Returns:
        Scalar float32, NaN where no query has been asked.
    """
    first, negatives, queries = sums
    return torch.pow(first / queries, NEGATIVES * queries / negatives)


def earliest_start(total_steps: int | None) -> int:
    """Optimizer steps before which ``auto`` never begins.

    Args:
        total_steps: of the whole run; 0 is returned where they are not known.
    """
    return 0 if total_steps is None else math.ceil((1 - LAST_PART) * total_steps)


def head_is_trained(state: Mapping[str, Tensor], prefix: str = "") -> bool:
    """Whether the matching head of a saved criterion has made a step since it waited.

    Args:
        state: of a criterion that matches; ``True`` for one that says nothing of it, which has
            matched from its first step.
        prefix: of the criterion's names.
    """
    since, steps = (state.get(f"{prefix}{x}") for x in ("matching_start.since", "num_steps"))
    if since is None or steps is None or not since.numel() or not steps.numel():
        return True
    return int(since) == 0 or 0 < int(since) < int(steps)


class MatchingStart(StaysFloat32):
    """In which optimizer steps there is a matching loss. It begins once and never ends again.

    Args:
        start: optimizer steps before it, or ``auto`` for the rule of this module.
        every: from then on it is in the first of so many steps.

    Attributes:
        since: ``[1]`` int64, optimizer steps made when it began, -1 before.
        sums: ``[3]`` float32, see :func:`ranking_sums`, of the last steps before it begins.
    """

    since: Tensor
    sums: Tensor

    def __init__(self, start: int | Literal["auto"], every: int = 1) -> None:
        super().__init__()
        self._start, self._every, self._warned = start, every, False
        self.register_buffer("since", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("sums", torch.zeros(3))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Back to the initial state, in place."""
        self._set(0 if self._start == 0 else -1)
        self.sums.zero_()

    @property
    def begun_at(self) -> int:
        """Optimizer steps made when it began, -1 before."""
        return self._since

    @property
    def begun(self) -> bool:
        """Whether a step has had, or the next one may have, a matching loss."""
        return self._since >= 0

    @property
    def looks(self) -> bool:
        """Whether the rule is still asked."""
        return self._start == "auto" and not self.begun

    def is_due(self, num_steps: int) -> bool:
        """Whether the next optimizer step has a matching loss.

        Args:
            num_steps: optimizer steps made.
        """
        return self.begun and (num_steps - self._since) % self._every == 0

    def turn(self, num_steps: int) -> int:
        """Which step with a matching loss the next one is, so that what is done in turns changes
        with each of them.

        Args:
            num_steps: optimizer steps made.
        """
        return max(0, num_steps - self._since) // self._every

    def check(self, total_steps: int | None) -> None:
        """Warn, once and before the first step, of a start that the run does not reach.

        Args:
            total_steps: of the run, where they are known.
        """
        late = self._start != "auto" and total_steps is not None and total_steps <= self._start
        if late and not (self._warned or self.begun or process_index()):
            self._warned = True
            warnings.warn(
                f"`atm_start` is {self._start:,}, but the run has {total_steps:,} steps: the "
                "matching head will never be trained. Lower it, train longer, or take the "
                "criterion moco_atc.",
                stacklevel=2,
            )

    def catch_up(self, num_steps: int) -> None:
        """After a load: begin where a number of steps is over that the saved run had to wait
        longer. With a start of 0 hosts count on a gradient of the head in every pass.

        Args:
            num_steps: optimizer steps made.
        """
        if not self.begun and self._start != "auto" and num_steps >= self._start:
            self._set(num_steps)

    @torch.no_grad()
    def look(self, a: Tensor, u: Tensor, positives: Tensor) -> None:
        """Add the queries of a global batch; arguments as of :func:`ranking_sums`."""
        self.sums += ranking_sums(a, u, positives)

    @torch.no_grad()
    def on_optimizer_step(self, num_steps: int, total_steps: int | None) -> None:
        """Decide whether the matching loss begins. Every process calls it.

        Args:
            num_steps: optimizer steps made, with this one.
            total_steps: of the whole run, ``None`` where it is not known. In the middle of its last
                part and at its end process 0 warns where the matching loss has not begun.
        """
        if self.begun:
            return
        if self._start != "auto":
            begins = num_steps >= self._start
        elif num_steps % DECIDE_EVERY == 0 and num_steps >= earliest_start(total_steps):
            # The sums are equal on every process, but only up to rounding.
            ready = process_index() == 0 and bool(first_of_eight(self.sums) >= THRESHOLD)
            begins = broadcast_bool(ready, self.sums.device)
        else:
            begins = False
        self.sums *= KEPT
        if begins:
            self._set(num_steps)
        elif total_steps is not None:
            self._warn(num_steps, total_steps)

    def _warn(self, num_steps: int, total_steps: int) -> None:
        auto = self._start == "auto"
        middle = (earliest_start(total_steps) + total_steps) // 2
        if process_index() or num_steps not in (total_steps, auto and middle):
            return
        why = (
            f"an item finds its own first of eight with probability {first_of_eight(self.sums):.2f}"
            f", and {THRESHOLD} is asked for"
            if auto
            else f"`atm_start` is {self._start}"
        )
        warnings.warn(
            f"The matching loss has not begun after {num_steps:,} of {total_steps:,} steps: {why}. "
            "The matching head is untrained until then, and nothing is re-ranked with it. Train "
            "longer, set `atm_start` to a step, or take the criterion moco_atc.",
            stacklevel=2,
        )

    def _set(self, since: int) -> None:
        self._since = since  # mirrors the buffer, so that no step waits for the device
        self.since.fill_(since)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._since = int(self.since)
