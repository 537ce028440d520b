"""The exchanges the criteria need; each is the identity in a single process."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from atr_moco_plugin.tensors.transfer import to_device
from atr_moco_plugin.tokens import TokensT


class RanksDifferError(RuntimeError):
    """What has to be equal on all ranks is not; raised on every one of them."""


def world_size() -> int:
    """Number of processes of the default group, 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process in the default group, 0 where there is none."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def of_every_rank(numbers: Sequence[int], device: torch.device) -> list[list[int]]:
    """The numbers of every rank, in rank order: one exchange, which the host waits for.

    Args:
        numbers: as many on every rank.
        device: where the process group exchanges tensors.
    """
    if world_size() == 1:
        return [list(numbers)]
    own = to_device(torch.tensor(numbers, dtype=torch.int64), device)
    every = own.new_empty(world_size() * len(own))
    dist.all_gather_into_tensor(every, own)
    return every.view(world_size(), -1).tolist()


def sizes(n: int, device: torch.device) -> list[int]:
    """``n`` of every rank, in rank order; see :func:`of_every_rank`."""
    return [size for (size,) in of_every_rank([n], device)]


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
    counts = sizes(len(x), x.device) if counts is None else counts
    if not grad:
        return gather_packed(x, counts=counts)[0]
    return _unpadded(_Gather.apply(_pad(x, 0, max(counts))), counts)


def gather_packed(*tensors: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Concatenate several tensors of all ranks, each along dimension 0, in one exchange.

    Args:
        tensors: ``[B, ...]`` each, of any dtype; no gradient flows.
        counts: B of every rank, from :func:`sizes`.

    Returns:
        ``[sum of B, ...]`` each.
    """
    if world_size() == 1:
        return [x.detach() for x in tensors]
    parts = [_bytes(x) for x in tensors]
    packed = _pad(torch.cat(parts, dim=1), 0, max(counts))
    every = packed.new_empty(world_size() * len(packed), packed.size(1))
    dist.all_gather_into_tensor(every, packed)
    every = _unpadded(every, counts)
    found = []
    for x, part in zip(tensors, every.split([part.size(1) for part in parts], dim=1), strict=True):
        # Cloned, since another dtype takes bytes that lie together and begin at its own boundary.
        own = part.clone(memory_format=torch.contiguous_format).flatten()
        found.append(own.view(x.dtype).view(len(part), *x.shape[1:]))
    return found


def _bytes(x: Tensor) -> Tensor:
    """``[B, ...]`` -> ``[B, bytes of a row]`` uint8."""
    row = math.prod(x.shape[1:]) * x.element_size()
    return x.detach().flatten().contiguous().view(torch.uint8).view(len(x), row)


def gather_tokens(
    tokens: TokensT, *, counts: Sequence[int] | None = None, longest: int | None = None
) -> TokensT:
    """Concatenate the token sequences of all ranks, padded to the longest of them all: one exchange
    for the states, where there are any, and one for the rest.

    Args:
        tokens: :class:`~atr_moco_plugin.tokens.AudioTokens` or ``TextTokens`` of B items.
        counts: as of :func:`gather`.
        longest: most tokens of any rank; ``None`` asks for it as for ``counts``.

    Returns:
        Those of all ranks, in rank order. The gradient flows through the states.
    """
    if world_size() == 1:
        return tokens
    if counts is None or longest is None:
        shapes = of_every_rank(tokens.mask.shape, tokens.mask.device)
        counts = [rows for rows, _ in shapes]
        longest = max(length for _, length in shapes)
    tokens = pad_tokens(tokens, longest)
    states = None if tokens.states is None else gather(tokens.states, grad=True, counts=counts)
    return type(tokens)(states, *gather_packed(*tokens[1:], counts=counts))


def pad_tokens(tokens: TokensT, length: int) -> TokensT:
    """Tokens padded to a length, with invalid ones."""
    return type(tokens)(*(None if x is None else _pad(x, 1, length) for x in tokens))


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


class _Gather(torch.autograd.Function):
    """``[B, ...]`` of every rank, one after the other. In backward each rank gets the sum of what
    all ranks found for its rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        every = x.new_empty(world_size() * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(every, x.contiguous())
        return every

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        rows = len(grad) // world_size()
        if grad.device.type == "cuda":
            own = grad.new_empty(rows, *grad.shape[1:])
            dist.reduce_scatter_tensor(own, grad.contiguous())
            return own
        # Other backends have no such exchange in every version of PyTorch.
        every = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(every)
        return every[rank() * rows : (rank() + 1) * rows]


def _pad(x: Tensor, dim: int, length: int) -> Tensor:
    missing = length - x.size(dim)
    if missing == 0:
        return x
    return F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, missing])


def _unpadded(x: Tensor, counts: Sequence[int]) -> Tensor:
    """The first rows of every rank's part, of which there are ``counts``."""
    if len(set(counts)) == 1:
        return x
    return torch.cat([part[:n] for part, n in zip(x.split(max(counts)), counts, strict=True)])
