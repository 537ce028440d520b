"""The exchanges the criteria need; each is the identity in a single process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_autograd
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.encoders.tokens import AudioTokens, TextTokens

TokensT = TypeVar("TokensT", AudioTokens, TextTokens)


class RanksDifferError(RuntimeError):
    """What has to be equal on all ranks is not; raised on every one of them."""


def world_size() -> int:
    """Number of processes of the default group, 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process in the default group, 0 where there is none."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sizes(n: int, device: torch.device) -> list[int]:
    """``n`` of every rank, in rank order."""
    if world_size() == 1:
        return [n]
    own = torch.tensor([n], dtype=torch.int64, device=device)
    every = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(every, own)
    return [int(x) for x in every]


def mean_weight(own: int | Tensor, total: int | Tensor) -> float | Tensor:
    """Factor on a mean over this rank's items, with which the mean over ranks, as DDP and FSDP take
    it of gradients, is the mean over the items of all ranks.

    Args:
        own: items of this rank.
        total: items of all ranks.

    Returns:
        1 where every rank has equally many.
    """
    return own * world_size() / total


def checksum(x: Tensor) -> Tensor:
    """Sum over the bits of a tensor, the same on every device and in every order of summation.

    Args:
        x: any dtype of 1, 2, 4 or 8 bytes. A NaN equals itself, and -0 is not 0.

    Returns:
        Scalar int64, modulo 2**64. It weighs the rows of dimension 0, so rows that changed places
        show.
    """
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = x.detach().contiguous().view(integers[x.element_size()])
    rows = bits.flatten(1).sum(dim=1) if x.dim() > 1 else bits.flatten().long()
    # Odd, so that no weight loses a bit of its row; rows of zeros count too.
    weights = 2 * torch.arange(len(rows), device=x.device) + 1
    return ((rows + 1) * weights).sum()


def ranks_that_differ(named: Mapping[str, Sequence[Tensor]]) -> dict[str, list[int]]:
    """What is not equal to the last bit on every rank, found out by every rank alike.

    Args:
        named: name to tensors, with the same names on every rank; their shapes may differ. All
            tensors are on the device where the process group exchanges them.

    Returns:
        Name to the ranks whose tensors are not those of rank 0, for those names alone that have
        any. Empty in a single process, where no tensor is read.
    """
    if world_size() == 1 or not named:
        return {}
    # One exchange, whatever is compared.
    sums = [checksum(x) for tensors in named.values() for x in tensors]
    own = torch.stack(sums)
    every = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(every, own)
    lengths = [len(tensors) for tensors in named.values()]
    of_ranks = [of_rank.split(lengths) for of_rank in torch.stack(every).cpu()]
    differing = {
        name: [i for i, x in enumerate(of_ranks) if not torch.equal(x[at], of_ranks[0][at])]
        for at, name in enumerate(named)
    }
    return {name: ranks for name, ranks in differing.items() if ranks}


def of_first_rank(decision: bool, device: torch.device) -> bool:
    """What rank 0 decided, on every rank.

    Args:
        decision: read on rank 0 alone.
        device: where the process group exchanges tensors.
    """
    if world_size() == 1:
        return decision
    shared = torch.tensor([decision], dtype=torch.int64, device=device)
    dist.broadcast(shared, src=0)
    return bool(shared.item())


def gather(x: Tensor, *, grad: bool = False, counts: Sequence[int] | None = None) -> Tensor:
    """Concatenate ``x`` of all ranks along dimension 0, in rank order.

    Args:
        x: ``[B, ...]``; B may differ between ranks, the other dimensions may not.
        grad: let the gradient flow back to the rank a row came from, summed over the ranks that
            used it; with the mean that DDP takes over ranks this is the gradient of the global
            mean.
        counts: B of every rank, from :func:`sizes`; ``None`` asks for it, which is an exchange more
            and makes the host wait for the device.

    Returns:
        ``[sum of B, ...]``.
    """
    if world_size() == 1:
        return x
    rows = sizes(len(x), x.device) if counts is None else counts
    padded = _pad(x, 0, max(rows)).contiguous()
    if grad:
        every = list(dist_autograd.all_gather(padded))
    else:
        every = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(every, padded.detach())
    return torch.cat([part[:n] for part, n in zip(every, rows)])


def gather_tokens(tokens: TokensT, *, counts: Sequence[int] | None = None) -> TokensT:
    """Concatenate the token sequences of all ranks, padded to the longest of them all.

    Args:
        tokens: :class:`~atr_moco_plugin.encoders.tokens.AudioTokens` or ``TextTokens`` of B items.
        counts: as of :func:`gather`.

    Returns:
        Those of all ranks, in rank order. The gradient flows through the states.
    """
    if world_size() == 1:
        return tokens
    batch, length = tokens.mask.shape
    counts = sizes(batch, tokens.mask.device) if counts is None else counts
    longest = max(sizes(length, tokens.mask.device))  # of states, mask and ids alike
    padded = (_pad(x, 1, longest) for x in tokens)
    return type(tokens)(*(gather(x, grad=x.is_floating_point(), counts=counts) for x in padded))


def gather_values(value: object, device: torch.device) -> list[Any]:
    """A value of every rank, in rank order.

    Args:
        value: what JSON has: numbers, texts, lists and mappings with texts for keys.
        device: where the process group exchanges tensors.
    """
    if world_size() == 1:
        return [value]
    own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    counts = sizes(len(own), device)
    every = gather(own, counts=counts).cpu().split(counts)
    return [json.loads(bytes(part.tolist())) for part in every]


def _pad(x: Tensor, dim: int, length: int) -> Tensor:
    missing = length - x.size(dim)
    if missing == 0:
        return x
    return F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, missing])
