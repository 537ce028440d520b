"""The exchanges that criteria and evaluation need; each is the identity in a single process."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from atr_moco_plugin.tensors.transfer import to_device


def world_size() -> int:
    """Number of processes of the default group, 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """Index of this process in the default group (torch's ``rank``), 0 where there is none."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def mean_weight(own: int | Tensor, total: int | Tensor) -> float | Tensor:
    """Weight of a process's mean loss, so that uneven batches count each item once.

    DDP and FSDP average gradients over processes as if all had equally many items. With 3 items
    here and 1 on another process, the weights 1.5 and 0.5 make that average the mean over the 4
    items.

    Args:
        own: items of this process.
        total: items of all processes.

    Returns:
        ``own * world_size / total``: 1 where every process has equally many.
    """
    return own * world_size() / total


def gather_numbers(numbers: Sequence[int], device: torch.device) -> list[list[int]]:
    """Gather a few integers of every process in one exchange, for which the host waits.

    Args:
        numbers: equally many on every process.
        device: where the process group exchanges tensors.

    Returns:
        The numbers of each process, in process order.
    """
    if world_size() == 1:
        return [list(numbers)]
    own = to_device(torch.tensor(numbers, dtype=torch.int64), device)
    gathered = own.new_empty(world_size() * len(own))
    dist.all_gather_into_tensor(gathered, own)
    found: list[list[int]] = gathered.view(world_size(), -1).tolist()
    return found


def gather_counts(n: int, device: torch.device) -> list[int]:
    """``n`` of every process, in process order; see :func:`gather_numbers`."""
    return [count for (count,) in gather_numbers([n], device)]


def broadcast_bool(decision: bool, device: torch.device) -> bool:
    """Take over the decision of process 0.

    Args:
        decision: read on process 0 alone.
        device: where the process group exchanges tensors.
    """
    if world_size() == 1:
        return decision
    shared = torch.tensor([decision], dtype=torch.int64, device=device)
    dist.broadcast(shared, src=0)
    return bool(shared.item())


def any_process(flag: Tensor) -> bool:
    """Whether a scalar bool is true on any process. The host waits for the device."""
    number = flag.long()
    if world_size() > 1:
        dist.all_reduce(number)
    return bool(number.item())


def gather(x: Tensor, *, grad: bool = False, counts: Sequence[int] | None = None) -> Tensor:
    """Concatenate ``x`` of all processes along dimension 0, in process order.

    Args:
        x: ``[B, ...]``; B may differ between processes, the other dimensions may not.
        grad: let the gradient flow back to the process that a row came from, summed over the
            processes that used it. With DDP's mean over processes this is the gradient of the
            global mean.
        counts: B of every process, from :func:`gather_counts`. ``None`` asks for it, which is one
            more exchange and makes the host wait for the device.

    Returns:
        ``[sum of B, ...]``.
    """
    if world_size() == 1:
        return x
    counts = gather_counts(len(x), x.device) if counts is None else counts
    if not grad:
        return gather_packed(x, counts=counts)[0]
    return _unpadded(_Gather.apply(pad_to(x, 0, max(counts))), counts)


def gather_packed(*tensors: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Concatenate several tensors of all processes, each along dimension 0, in one exchange.

    Args:
        tensors: ``[B, ...]`` each, of any dtype; no gradient flows.
        counts: B of every process, from :func:`gather_counts`.

    Returns:
        ``[sum of B, ...]`` each.
    """
    if world_size() == 1:
        return [x.detach() for x in tensors]
    parts = [_bytes(x) for x in tensors]
    packed = pad_to(torch.cat(parts, dim=1), 0, max(counts))
    gathered = packed.new_empty(world_size() * len(packed), packed.size(1))
    dist.all_gather_into_tensor(gathered, packed)
    gathered = _unpadded(gathered, counts)
    found = []
    widths = [part.size(1) for part in parts]
    for x, part in zip(tensors, gathered.split(widths, dim=1), strict=True):
        # A clone, because a view of another dtype needs adjacent bytes that start at its boundary.
        own = part.clone(memory_format=torch.contiguous_format).flatten()
        found.append(own.view(x.dtype).view(len(part), *x.shape[1:]))
    return found


def gather_padded(*tensors: Tensor | None) -> list[Tensor | None]:
    """Concatenate sequences of all processes, padded with zeros to the longest of them all.

    Args:
        tensors: ``[B, T, ...]`` each, with equal B and T; both may differ between processes. A
            ``None`` stays one, and has to be one on every process. No gradient flows.

    Returns:
        ``[sum of B, longest T, ...]`` each.
    """
    given = [x for x in tensors if x is not None]
    if world_size() == 1 or not given:
        return list(tensors)
    shapes = gather_numbers(given[0].shape[:2], given[0].device)
    longest = max(length for _, length in shapes)
    padded = (pad_to(x, 1, longest) for x in given)
    gathered = iter(gather_packed(*padded, counts=[rows for rows, _ in shapes]))
    return [None if x is None else next(gathered) for x in tensors]


def gather_values(value: object, device: torch.device) -> list[Any]:
    """Gather a JSON value of every process, in process order.

    Args:
        value: numbers, texts, lists, and mappings with texts for keys.
        device: where the process group exchanges tensors.
    """
    if world_size() == 1:
        return [value]
    own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    counts = gather_counts(len(own), device)
    parts = gather(own, counts=counts).cpu().split(counts)
    return [json.loads(bytes(part.tolist())) for part in parts]


def pad_to(x: Tensor, dim: int, length: int) -> Tensor:
    """Pad a dimension with zeros (``False`` in a mask) at its end; ``x`` itself where it is as long
    already."""
    missing = length - x.size(dim)
    if missing == 0:
        return x
    return F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, missing])


class _Gather(torch.autograd.Function):
    """``[B, ...]`` of every process, one after the other. In backward each process gets the sum of
    the gradients that all processes found for its rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gathered = x.new_empty(world_size() * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(gathered, x.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        rows = len(grad) // world_size()
        if grad.device.type == "cuda":
            own = grad.new_empty(rows, *grad.shape[1:])
            dist.reduce_scatter_tensor(own, grad.contiguous())
            return own
        # Other backends have no reduce-scatter in every version of PyTorch.
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[process_index() * rows : (process_index() + 1) * rows]


def _bytes(x: Tensor) -> Tensor:
    """``[B, ...]`` -> ``[B, bytes of a row]`` uint8."""
    row = math.prod(x.shape[1:]) * x.element_size()
    return x.detach().flatten().contiguous().view(torch.uint8).view(len(x), row)


def _unpadded(x: Tensor, counts: Sequence[int]) -> Tensor:
    """Cut the padding: of each process's equally long part the first ``counts`` rows."""
    if len(set(counts)) == 1:
        return x
    return torch.cat([part[:n] for part, n in zip(x.split(max(counts)), counts, strict=True)])
