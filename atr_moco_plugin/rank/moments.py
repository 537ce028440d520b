"""Sums over a queue's rows that follow it: rows in minus rows out, in place of a new pass.

A logged step then costs the rows that came since the last one, whatever the queue's size. Three
rules, none of which depends on the values, keep that right:

- Sums are kept where fewer rows are written between two readings than a pass over half of the queue
  has; where logging is rarer, each reading sums the rows.
- They are summed anew after the queue was written over 16 times. Float64 would do without for
  long; what it bounds is any change of the rows that did not come through the queue.
- They are summed anew after a state of the queue was taken, and are not kept before another batch
  was written. A run that resumes from that state begins in the same way, so that both log the
  same to the last bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.queue import EmbeddingQueue, ObservedQueue
from atr_moco_plugin.rank.measures import log_potential, sample, uniformity, unit
from atr_moco_plugin.rank.spectrum import (
    blocks,
    second_moments,
    spectra_of_moments,
    to_float64,
)

_REFRESH_AFTER = 16  # times that all rows were written
_SAMPLE = 2048


@dataclass(frozen=True)
class Moments:
    """Sums over the rows x of an ``[N, d]`` matrix, in float64.

    Attributes:
        rows: N, at least 1.
        gram: ``[d, d]``, ``sum x x^T``.
        total: ``[d]``, ``sum x``.
        directions: ``[d]``, ``sum x / |x|``.
    """

    rows: int
    gram: Tensor
    total: Tensor
    directions: Tensor

    def spectra(self) -> tuple[Tensor, Tensor]:
        """See :func:`~atr_moco_plugin.rank.spectrum.spectra_of_moments`."""
        return spectra_of_moments(self.rows, self.total, self.gram)

    def mean_direction(self) -> Tensor:
        """Mean of the rows at length 1, ``[d]``."""
        return self.directions / self.rows


class _Follower(ABC):
    """Sums over the rows of one or more queues, and when they are made anew."""

    def __init__(self, *queues: EmbeddingQueue) -> None:
        self._queues = queues
        self._sums: tuple[Tensor, ...] | None = None
        self._since_read = 0
        self._since_summed = 0
        for queue in queues:
            queue.add_observer(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy follows the copies of the queues, which know of nobody.
        self.__dict__.update(state)
        self.restart()
        for queue in self._queues:
            queue.add_observer(self)

    @property
    def _rows(self) -> int:
        return sum(len(queue) for queue in self._queues)

    @torch.no_grad()
    def _read(self) -> tuple[Tensor, ...]:
        sums = self._sums
        if sums is None or self._since_summed > _REFRESH_AFTER * self._rows:
            sums = self._sum()
            self._since_summed = 0
            self._sums = sums if 0 < self._since_read <= self._rows // 2 else None
        self._since_read = 0
        return sums

    def rows_written(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        """See :class:`~atr_moco_plugin.queue.QueueObserver`."""
        self._since_read += len(rows)
        self._since_summed += len(rows)
        if self._sums is None:
            return
        moved = to_float64(new[:0]).device != self._sums[0].device
        if moved or self._since_read > self._rows // 2:
            self._sums = None
        else:
            self._update(queue, rows, old, new)

    def restart(self) -> None:
        """See :class:`~atr_moco_plugin.queue.QueueObserver`."""
        self._sums = None
        self._since_read = 0

    @abstractmethod
    def _sum(self) -> tuple[Tensor, ...]:
        """The sums over all rows, of tensors that nobody else holds."""

    def _update(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        """Take the old rows out of the sums and the new ones in, without waiting for a device."""


class QueueMoments(_Follower):
    """Moments of the rows of a queue, in float64.

    Args:
        queue: the queue to follow from now on.
    """

    def __init__(self, queue: EmbeddingQueue) -> None:
        super().__init__(queue)

    def read(self) -> Moments:
        """The moments of the valid rows; the tensors are good until the next batch is written."""
        return Moments(self._rows, *self._read())

    def _sum(self) -> tuple[Tensor, ...]:
        x = self._queues[0].valid[0]
        return (
            second_moments(blocks(x), x.size(1)),
            torch.stack([part.sum(dim=0) for part in blocks(x)]).sum(dim=0),
            torch.stack([unit(part).sum(dim=0) for part in blocks(x)]).sum(dim=0),
        )

    def _update(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        assert self._sums is not None
        gram, total, directions = self._sums
        old, new = to_float64(old), to_float64(new)
        # One sum of the signed rows, so that a batch over one that is equal changes nothing.
        gram += torch.cat([new, -old]).T @ torch.cat([new, old])
        total += (new - old).sum(dim=0)
        directions += (unit(new) - unit(old)).sum(dim=0)


class PairDistance(_Follower):
    """Alignment of two queues of one size: mean squared distance of rows of length 1.

    Args:
        a: a queue.
        b: one whose row i belongs to row i of ``a`` whenever it is read.
    """

    def __init__(self, a: EmbeddingQueue, b: EmbeddingQueue) -> None:
        super().__init__(a, b)

    def read(self) -> float:
        """See :func:`~atr_moco_plugin.rank.measures.alignment`."""
        # What is left of sums of equal rows may be a rounding error below zero.
        return max(float(self._read()[0]), 0.0) / len(self._queues[0])

    def _sum(self) -> tuple[Tensor, ...]:
        pairs = zip(*(blocks(queue.valid[0]) for queue in self._queues), strict=True)
        return (torch.stack([_squared(a, b) for a, b in pairs]).sum(),)

    def _update(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        assert self._sums is not None
        other = self._queues[1] if queue is self._queues[0] else self._queues[0]
        if other.size != queue.size:
            self._sums = None
            return
        # Until the other queue has its part of the batch too, its rows are of other items.
        partner = to_float64(other.embeddings[rows])
        self._sums[0].add_(_squared(to_float64(new), partner))
        self._sums[0].sub_(_squared(to_float64(old), partner))


class QueueUniformity(_Follower):
    """Uniformity of a queue on a fixed sample of its rows.

    Reading compares the sample with that of the last time: the potentials of the rows that are
    others are taken out and put in.

    Args:
        queue: the queue to follow from now on.
    """

    def __init__(self, queue: EmbeddingQueue) -> None:
        super().__init__(queue)
        self._indices = torch.empty(0, dtype=torch.int64)
        self._of = 0

    @torch.no_grad()
    def read(self) -> float:
        """See :func:`~atr_moco_plugin.rank.measures.uniformity`."""
        count = len(self._queues[0])
        if self._of != count:
            self._indices, self._of = sample(count, _SAMPLE), count
            self._sums = None
        previous = self._sums
        then, total = self._read()
        if self._sums is not None and self._sums is previous:
            now = self._sample()
            changed = (now != then).any(dim=1)
            total += _potentials(now, changed) - _potentials(then, changed)
            then.copy_(now)
        n = len(then)
        return float(total.log()) - math.log(n * (n - 1) / 2)

    def _sample(self) -> Tensor:
        rows = self._queues[0].valid[0]
        return unit(rows[self._indices.to(rows.device)])

    def _sum(self) -> tuple[Tensor, ...]:
        x = self._sample()
        pairs = len(x) * (len(x) - 1) / 2
        return x, x.new_tensor(pairs * math.exp(uniformity(x)))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (unit(a) - unit(b)).square().sum()


def _potentials(x: Tensor, chosen: Tensor) -> Tensor:
    """Sum of the potentials of all pairs of rows of which at least one is chosen."""
    rows = x[chosen]
    among = log_potential(rows, rows).exp()
    with_itself = among.diagonal().sum()  # 1 each, but for the zeros in place of a broken row
    with_all = log_potential(rows, x).exp().sum() - with_itself
    return with_all - (among.sum() - with_itself) / 2
