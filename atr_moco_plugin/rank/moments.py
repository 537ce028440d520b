"""Running sums over the rows of a queue: add the new rows, take out the old ones.

A logged step then costs the rows written since the last one, whatever the queue's size. Three rules
keep the sums right; none depends on the values:

- Sums are kept where at most half of the queue is written between two readings. Where logging is
  rarer, each reading sums all rows.
- They are summed again after the queue was written over 16 times. Float64 could do without for
  longer, but this bounds the life of any change of the rows that did not come through the queue.
- They are summed again after the state of the queue was saved, and are not kept before the next
  batch was written. A run that resumes from that state starts in the same way, so both runs log the
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


class _RunningSums(ABC):
    """Sums over the rows of one or more queues, and the rules on when to sum again."""

    def __init__(self, *queues: EmbeddingQueue) -> None:
        self.queues = queues
        self._sums: tuple[Tensor, ...] | None = None
        self._since_read = 0
        self._since_summed = 0
        for queue in queues:
            queue.add_observer(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copied queue has no observers.
        self.__dict__.update(state)
        self.restart()
        for queue in self.queues:
            queue.add_observer(self)

    @property
    def _rows(self) -> int:
        return sum(len(queue) for queue in self.queues)

    @torch.no_grad()
    def _read(self) -> tuple[Tensor, ...]:
        sums = self._sums
        if sums is None or self._since_summed > _REFRESH_AFTER * self._rows:
            sums = self.sum_rows()
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
            self.replace_rows(queue, rows, old, new)

    def restart(self) -> None:
        """See :class:`~atr_moco_plugin.queue.QueueObserver`."""
        self._sums = None
        self._since_read = 0

    @abstractmethod
    def sum_rows(self) -> tuple[Tensor, ...]:
        """The sums over all rows, in new tensors."""

    @abstractmethod
    def replace_rows(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        """Replace the old rows by the new ones in the sums, without waiting for a device."""


class QueueMoments(_RunningSums):
    """Moments of the rows of a queue, in float64.

    Args:
        queue: the queue to observe from now on.
    """

    def read(self) -> Moments:
        """The moments of the valid rows; the tensors are good until the next batch is written."""
        return Moments(self._rows, *self._read())

    def sum_rows(self) -> tuple[Tensor, ...]:
        x = self.queues[0].valid[0]
        return (
            second_moments(blocks(x), x.size(1)),
            torch.stack([part.sum(dim=0) for part in blocks(x)]).sum(dim=0),
            torch.stack([unit(part).sum(dim=0) for part in blocks(x)]).sum(dim=0),
        )

    def replace_rows(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        assert self._sums is not None
        gram, total, directions = self._sums
        old, new = to_float64(old), to_float64(new)
        # One sum of the signed rows, so that a batch over one that is equal changes nothing.
        gram += torch.cat([new, -old]).T @ torch.cat([new, old])
        total += (new - old).sum(dim=0)
        directions += (unit(new) - unit(old)).sum(dim=0)


class PairDistance(_RunningSums):
    """Alignment of two queues of one size: mean squared distance of rows of length 1.

    Args:
        a: a queue.
        b: a queue whose row i belongs to row i of ``a`` whenever the distance is read.
    """

    def read(self) -> float:
        """See :func:`~atr_moco_plugin.rank.measures.alignment`."""
        # Where the rows are equal, a rounding error may leave the sum below zero.
        return max(float(self._read()[0]), 0.0) / len(self.queues[0])

    def sum_rows(self) -> tuple[Tensor, ...]:
        pairs = zip(*(blocks(queue.valid[0]) for queue in self.queues), strict=True)
        return (torch.stack([_squared(a, b) for a, b in pairs]).sum(),)

    def replace_rows(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        assert self._sums is not None
        other = self.queues[1] if queue is self.queues[0] else self.queues[0]
        if other.size != queue.size:
            self._sums = None
            return
        # The other queue gets its part of the batch too; until then its rows are other items'.
        partner = to_float64(other.embeddings[rows])
        self._sums[0].add_(_squared(to_float64(new), partner))
        self._sums[0].sub_(_squared(to_float64(old), partner))


class QueueUniformity(_RunningSums):
    """Uniformity of a queue on a fixed sample of its rows.

    Reading compares the sample with the sample of the last reading and replaces the potentials of
    the rows that differ.

    Args:
        queue: the queue to observe from now on.
        max_rows: rows in the sample at most.
    """

    def __init__(self, queue: EmbeddingQueue, max_rows: int = 2048) -> None:
        super().__init__(queue)
        self._max_rows = max_rows
        self._indices = torch.empty(0, dtype=torch.int64)
        self._sampled_from = 0

    @torch.no_grad()
    def read(self) -> float:
        """See :func:`~atr_moco_plugin.rank.measures.uniformity`."""
        count = len(self.queues[0])
        if self._sampled_from != count:
            self._indices, self._sampled_from = sample(count, self._max_rows), count
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

    def replace_rows(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        """Reading finds the rows of the sample that differ."""

    def _sample(self) -> Tensor:
        rows = self.queues[0].valid[0]
        return unit(rows[self._indices.to(rows.device)])

    def sum_rows(self) -> tuple[Tensor, ...]:
        x = self._sample()
        pairs = len(x) * (len(x) - 1) / 2
        return x, x.new_tensor(pairs * math.exp(uniformity(x)))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (unit(a) - unit(b)).square().sum()


def _potentials(x: Tensor, chosen: Tensor) -> Tensor:
    """Sum of the potentials of all pairs of rows of which at least one is chosen."""
    rows = x[chosen]
    among = log_potential(rows, rows).exp()
    with_itself = among.diagonal().sum()  # 1 each; 0 for the zeros in place of a broken row
    with_all = log_potential(rows, x).exp().sum() - with_itself
    return with_all - (among.sum() - with_itself) / 2
