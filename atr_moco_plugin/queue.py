"""First-in first-out queue of momentum embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.float32 import StaysFloat32


class EmbeddingQueue(StaysFloat32):
    """FIFO of embeddings with the clip and caption ids they came from (MoCo, He et al. 2020).

    Rows that were never written do not exist for the reader: :attr:`valid` returns the written
    ones alone. Any batch size goes with any queue size. Everything is in persistent buffers, so a
    ``state_dict`` restores the queue exactly; a state of another size keeps the newest rows.

    Args:
        size: number of rows, 0 for a queue that stays empty.
        dim: embedding size d.

    Raises:
        ValueError: when ``size`` is negative or ``dim`` is not positive.

    Example:
        >>> queue = EmbeddingQueue(size=4, dim=2)
        >>> ids = torch.arange(3)
        >>> queue.enqueue(torch.eye(3, 2), clip_ids=ids, caption_ids=ids)
        >>> len(queue), queue.size
        (3, 4)
    """

    embeddings: Tensor
    clip_ids: Tensor
    caption_ids: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 0 or dim < 1:
            raise ValueError(f"A queue needs size >= 0 and dim >= 1, got size {size}, dim {dim}.")
        self.size = size
        self.dim = dim
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("clip_ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("caption_ids", torch.full((size,), -1, dtype=torch.int64))
        # [number of valid rows, next row to write]. The two Python integers below mirror it, since
        # reading a tensor on a GPU would stop the host once a step.
        self.register_buffer("position", torch.zeros(2, dtype=torch.int64))
        self._count = 0
        self._next = 0

    def __len__(self) -> int:
        return self._count

    @property
    def valid(self) -> tuple[Tensor, Tensor, Tensor]:
        """The written rows: embeddings ``[K, d]`` float32, clip ids ``[K]``, caption ids ``[K]``.

        These are views; :meth:`enqueue` writes into them. They are in no particular order.
        """
        k = self._count
        return self.embeddings[:k], self.clip_ids[:k], self.caption_ids[:k]

    @torch.no_grad()
    def enqueue(self, embeddings: Tensor, clip_ids: Tensor, caption_ids: Tensor) -> None:
        """Write a batch over the oldest rows.

        Args:
            embeddings: ``[B, d]`` float; of a batch longer than the queue the newest rows stay.
            clip_ids: ``[B]`` int64.
            caption_ids: ``[B]`` int64.

        Raises:
            ValueError: when the shapes do not fit.
        """
        if embeddings.dim() != 2 or embeddings.size(1) != self.dim:
            raise ValueError(
                f"The queue holds embeddings of size {self.dim}, "
                f"but the batch has shape {tuple(embeddings.shape)}."
            )
        if not len(embeddings) == len(clip_ids) == len(caption_ids):
            raise ValueError(
                f"A batch of {len(embeddings)} embeddings came with {len(clip_ids)} clip ids "
                f"and {len(caption_ids)} caption ids; the numbers must be equal."
            )
        n = min(len(embeddings), self.size)
        if n == 0:
            return
        rows = torch.arange(self._next, self._next + n, device=self.embeddings.device) % self.size
        self.embeddings[rows] = embeddings[-n:].to(self.embeddings)
        self.clip_ids[rows] = clip_ids[-n:].to(self.clip_ids)
        self.caption_ids[rows] = caption_ids[-n:].to(self.caption_ids)
        self._set_position(min(self._count + n, self.size), (self._next + n) % self.size)

    @torch.no_grad()
    def clear(self) -> None:
        """Forget every row."""
        self._set_position(0, 0)

    def _set_position(self, count: int, next_row: int) -> None:
        self._count, self._next = count, next_row
        self.position[0].fill_(count)
        self.position[1].fill_(next_row)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(prefix + "embeddings")
        other_size = saved is not None and saved.dim() == 2 and saved.size(0) != self.size
        if other_size and saved.size(1) == self.dim:
            state_dict = {**state_dict, **self._resized(state_dict, prefix)}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._count, self._next = (int(v) for v in self.position)

    def _resized(self, state_dict: dict[str, Any], prefix: str) -> dict[str, Tensor]:
        names = ("embeddings", "clip_ids", "caption_ids")
        saved_size = len(state_dict[prefix + "embeddings"])
        count, next_row = (int(v) for v in state_dict[prefix + "position"])
        kept = min(count, self.size)
        # Oldest to newest of the rows that stay; the newest sits just before the write position.
        newest = torch.arange(next_row - kept, next_row) % max(saved_size, 1)
        resized = EmbeddingQueue(self.size, self.dim)
        rows = (state_dict[prefix + name].cpu()[newest] for name in names)
        resized.enqueue(*rows)
        return {prefix + name: value for name, value in resized.state_dict().items()}
