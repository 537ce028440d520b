"""Checking a saved queue, and fitting it to a queue of another size or of a later version."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError

_IDS = ("clip_ids", "caption_ids", "second_ids")


def finite_rows(*embeddings: Tensor) -> Tensor:
    """Which items are finite in all their embeddings.

    Args:
        embeddings: one or more ``[B, d]`` float, row i of each belongs to the same item.

    Returns:
        ``[B]`` bool.
    """
    # The largest value of a row is NaN if any is, and needs no mask as large as a queue.
    largest = [torch.linalg.vector_norm(x.detach(), torch.inf, dim=1) for x in embeddings]
    return torch.stack(largest).isfinite().all(dim=0)


def fitted_state(
    state_dict: dict[str, Any], prefix: str, *, dim: int, least: int, max_size: int
) -> dict[str, Any]:
    """The state to load into a queue, from the saved state of any other.

    A state of another size keeps its newest rows, and a state of version 0.1.0 gets the size that
    its queues did not save.

    Args:
        state_dict: the saved state, which is not changed.
        prefix: of the queue's names in it.
        dim: embedding size of the queue.
        least: rows that the queue has at least, those that it was made with.
        max_size: rows that the queue has memory for. It takes over the saved size between the two.

    Raises:
        InputError: a saved row is NaN or infinite.
    """
    saved, position = (state_dict.get(prefix + name) for name in ("embeddings", "position"))
    # What is missing, or has another embedding size, is for `load_state_dict` to report.
    if saved is None or position is None:
        return state_dict
    if len(position) == 2:  # version 0.1.0, where every queue had a fixed size
        position = torch.cat([position, position.new_tensor([len(saved), 0])])
        state_dict = {**state_dict, prefix + "position": position}
    if prefix + "second_ids" not in state_dict:  # of before there were mixtures
        none = torch.full((len(saved), 2), -1, dtype=torch.int64)
        state_dict = {**state_dict, prefix + "second_ids": none}
    if saved.dim() != 2 or saved.size(1) == 0:
        return state_dict
    count, next_row, size, _ = (int(x) for x in position)
    if broken := int((~finite_rows(saved[:count])).sum()):
        raise InputError(
            f"{broken} of the {count:,} rows of `{prefix}embeddings` in this state are NaN or "
            "infinite, so the checkpoint is damaged: go on from an earlier one."
        )
    new_size = max(least, min(size, max_size))
    if saved.size(1) != dim or (len(saved) == max_size and size == new_size):
        return state_dict
    kept = min(count, new_size)
    # Oldest to newest of the rows that stay; the newest sits just before the next to write.
    newest = torch.arange(next_row - kept, next_row) % max(size, 1)
    embeddings = torch.zeros(max_size, dim)
    embeddings[:kept] = saved.cpu()[newest].float()
    resized = {
        "embeddings": embeddings,
        "position": torch.tensor([kept, kept % max(new_size, 1), new_size, kept]),
    }
    for name in _IDS:
        ids = state_dict[prefix + name].cpu()
        resized[name] = torch.full((max_size, *ids.shape[1:]), -1, dtype=torch.int64)
        resized[name][:kept] = ids[newest]
    return {**state_dict, **{prefix + name: x for name, x in resized.items()}}
