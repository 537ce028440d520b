"""First-in first-out queue of momentum embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.queue.batch_ids import check_ids
from atr_moco_plugin.queue.observers import ObservedQueue
from atr_moco_plugin.queue.states import finite_rows, fitted_state


class EmbeddingQueue(ObservedQueue):
    """FIFO of embeddings with the clip and caption ids they came from (MoCo, He et al. 2020).

    Rows that were never written do not exist for the reader: :attr:`valid` returns the written
    ones alone. Any batch size goes with any queue size. Everything is in persistent buffers, so a
    ``state_dict`` restores the queue exactly; a state of another size keeps the newest rows.

    A row may be of a mixture of two clips, and then has the ids of both, so that it is no negative
    of either.

    A queue with ``max_size`` can :meth:`grow` up to it; the memory for that is there from the
    start. It takes over the size of a state it loads, as far as that fits.

    Args:
        size: number of rows, 0 for a queue that stays empty.
        dim: embedding size d.
        max_size: rows it can grow to; None takes ``size``.

    Attributes:
        size: rows it holds when it is full, at present.
        max_size: rows it can grow to.
        nonfinite_clip_ids: ``[B]`` int64 of the last batch: the clip id of each row with a NaN or
            an infinity, -1 for the other rows. Not part of the state.

    Raises:
        ValueError: when ``size`` is negative or above ``max_size``, or ``dim`` is not positive.

    Example:
        >>> queue = EmbeddingQueue(size=4, dim=2)
        >>> ids = torch.arange(3)
        >>> queue.enqueue(torch.eye(3, 2), clip_ids=ids, caption_ids=ids)
        >>> len(queue), queue.size
        (3, 4)
    """

    clip_ids: Tensor
    caption_ids: Tensor
    second_ids: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int, max_size: int | None = None) -> None:
        super().__init__()
        if size < 0 or dim < 1:
            raise ValueError(f"A queue needs size >= 0 and dim >= 1, got size {size}, dim {dim}.")
        if max_size is not None and max_size < size:
            raise ValueError(f"A queue of size {size} cannot have the max_size {max_size}.")
        self.max_size = size if max_size is None else max_size
        self.dim = dim
        self.register_buffer("embeddings", torch.zeros(self.max_size, dim))
        self.register_buffer("clip_ids", torch.full((self.max_size,), -1, dtype=torch.int64))
        self.register_buffer("caption_ids", torch.full((self.max_size,), -1, dtype=torch.int64))
        # Of the second clip of a mixture and of its caption; -1 in the rows of one clip.
        self.register_buffer("second_ids", torch.full((self.max_size, 2), -1, dtype=torch.int64))
        self._any_second = False
        # [valid rows, next row to write, size, rows that count as new to `refilled`]. Python
        # integers mirror it, because reading a tensor on a GPU would stop the host in each step.
        self.register_buffer("position", torch.zeros(4, dtype=torch.int64))
        self.nonfinite_clip_ids = torch.empty(0, dtype=torch.int64)
        self._initial_size = size
        self._set_position(0, 0, size, 0)

    def __len__(self) -> int:
        return self._count

    @property
    def valid(self) -> tuple[Tensor, Tensor, Tensor]:
        """The written rows: embeddings ``[K, d]`` float32, clip ids ``[K]``, caption ids ``[K]``.

        These are views; :meth:`enqueue` writes into them. They are in no particular order. Of a
        mixture the ids are those of its first clip; :attr:`ids` has both.
        """
        k = self._count
        return self.embeddings[:k], self.clip_ids[:k], self.caption_ids[:k]

    @property
    def ids(self) -> tuple[Tensor, Tensor]:
        """Clip ids and caption ids of the rows of :attr:`valid`: ``[K]`` int64 each, or ``[K, 2]``
        where mixtures were written, with -1 for the second of a row that is none."""
        clips, captions, k = self.clip_ids, self.caption_ids, self._count
        if not self._any_second:
            return clips[:k], captions[:k]
        pairs = zip((clips, captions), self.second_ids.unbind(1), strict=True)
        first, second = (torch.stack([x[:k], y[:k]], dim=1) for x, y in pairs)
        return first, second

    @property
    def refilled(self) -> bool:
        """Whether every row is new to the rule of growth: the queue is full, and since the rule was
        last asked it has filled up or been rewritten once."""
        return self._fresh >= self.size > 0

    def newest(self, n: int) -> Tensor:
        """Embeddings of the newest rows, oldest first.

        Args:
            n: how many, at most ``len(queue)``.

        Returns:
            ``[n, d]`` float32, a copy.
        """
        return self.embeddings[self._rows_before_next(n)]

    def newest_rows(self, n: int) -> slice | Tensor:
        """Where the newest ``n`` rows are among those of :attr:`valid` and :attr:`ids`, in no
        particular order.

        Args:
            n: how many, at most ``len(queue)``.

        Returns:
            A slice where they lie together, which takes no copy, otherwise indices ``[n]`` int64.
        """
        if n == self._count:
            return slice(n)
        if n <= self._next:
            return slice(self._next - n, self._next)
        return self._rows_before_next(n)

    @torch.no_grad()
    def grow(self, size: int) -> None:
        """Hold more rows from now on. The present rows stay, in their order.

        Args:
            size: rows, from the present size to ``max_size``. The present size changes
                :attr:`refilled` alone.

        Raises:
            ValueError: when ``size`` is outside of that range.
        """
        if not self.size <= size <= self.max_size:
            raise ValueError(
                f"A queue of {self.size} rows can grow to {self.size} up to {self.max_size}, "
                f"not to {size}."
            )
        if size == self.size:
            self._set_position(self._count, self._next, size, 0)
            return
        # The oldest row to the front, so that writing goes on behind the newest.
        order = self._rows_before_next(self._count)
        for rows in (self.embeddings, self.clip_ids, self.caption_ids, self.second_ids):
            rows[: self._count] = rows[order]
        self._set_position(self._count, self._count, size, self._count)
        self._restart_observers()

    @torch.no_grad()
    def enqueue(
        self,
        embeddings: Tensor,
        clip_ids: Tensor,
        caption_ids: Tensor,
        *,
        finite: Tensor | None = None,
    ) -> None:
        """Write a batch over the oldest rows.

        Where a new row has a NaN or an infinity, the old row stays with its ids. Where there is no
        old row yet, while the queue is filling, a row of zeros with the ids -1 takes the place: its
        similarity to everything is 0, and it is nobody's positive. The number of rows written
        cannot depend on the values, because the host does not wait for them.

        Args:
            embeddings: ``[B, d]`` float; of a batch longer than the queue the newest rows stay.
            clip_ids: ``[B]`` int64, or ``[B, 2]`` where some are mixtures of two clips, with -1 for
                the second of the others. A first id of -1 is that of nobody, and
                :class:`~atr_moco_plugin.rank.RankLogger` leaves its row out; on the CPU it is
                refused, elsewhere the host would have to wait to see it.
            caption_ids: of the same shape.
            finite: ``[B]`` bool, :func:`finite_rows` of the embeddings for this queue and for a
                second one with the same items, so that row k of both stays the same item. ``None``
                looks at ``embeddings`` alone.

        Raises:
            ValueError: when the embeddings are of another shape.
            InputError: see :func:`~atr_moco_plugin.queue.batch_ids.check_ids`.
        """
        if embeddings.dim() != 2 or embeddings.size(1) != self.dim:
            raise ValueError(
                f"The queue holds embeddings of size {self.dim}, "
                f"but the batch has shape {tuple(embeddings.shape)}."
            )
        check_ids(len(embeddings), clip_ids, caption_ids)
        second = None
        if clip_ids.dim() == 2:
            second = torch.stack([clip_ids[:, 1], caption_ids[:, 1]], dim=1)
            clip_ids, caption_ids = clip_ids[:, 0], caption_ids[:, 0]
            self._any_second = True
        own = finite_rows(embeddings)
        self.nonfinite_clip_ids = torch.where(own, -1, clip_ids)
        finite = own if finite is None else own & finite
        n = min(len(embeddings), self.size)
        if n == 0:
            return
        rows = torch.arange(self._next, self._next + n, device=self.embeddings.device) % self.size
        kept = finite[-n:].to(self.embeddings.device)
        new = embeddings[-n:].to(self.embeddings)
        old = self.embeddings[rows]
        new = torch.where(kept[:, None], new, old)
        self.embeddings[rows] = new
        for ids, given in ((self.clip_ids, clip_ids), (self.caption_ids, caption_ids)):
            ids[rows] = torch.where(kept, given[-n:].to(ids), ids[rows])
        if self._any_second:
            none = self.second_ids.new_full((n, 2), -1)
            given = none if second is None else second[-n:].to(none)
            self.second_ids[rows] = torch.where(kept[:, None], given, self.second_ids[rows])
        self._set_position(
            min(self._count + n, self.size),
            (self._next + n) % self.size,
            self.size,
            min(self._fresh + n, self.size),
        )
        for observer in self._observers:
            observer.rows_written(self, rows, old, new)

    @torch.no_grad()
    def clear(self) -> None:
        """Forget every row; the size stays."""
        self.embeddings.zero_()
        self.clip_ids.fill_(-1)
        self.caption_ids.fill_(-1)
        self.second_ids.fill_(-1)
        self._any_second = False
        self._set_position(0, 0, self.size, 0)
        self._restart_observers()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Return to the initial state, in place: no row, and the size it was made with. For a queue
        that was made on the device ``meta`` and moved with ``to_empty``."""
        self.size = self._initial_size
        self.nonfinite_clip_ids = torch.empty(0, dtype=torch.int64, device=self.position.device)
        self.clear()

    def _rows_before_next(self, n: int) -> Tensor:
        """Indices of the newest ``n`` rows, oldest first: they end before the next to write."""
        rows = torch.arange(self._next - n, self._next, device=self.embeddings.device)
        return rows % max(self.size, 1)

    def _set_position(self, *position: int) -> None:
        self._count, self._next, self.size, self._fresh = position
        for i, value in enumerate(position):
            self.position[i].fill_(value)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._save_to_state_dict(*args, **kwargs)
        self._restart_observers()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        state_dict = fitted_state(
            state_dict,
            prefix,
            dim=self.dim,
            least=self._initial_size,
            max_size=self.max_size,
        )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._any_second = bool((self.second_ids >= 0).any())
        self._set_position(*(int(v) for v in self.position))
        self._restart_observers()
