"""Whether all processes hold the same tensors, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from atr_moco_plugin.distributed.collectives import world_size


class ProcessesDifferError(RuntimeError):
    """Tensors that must be equal on all processes differ. Every process raises it."""


def checksum(x: Tensor) -> Tensor:
    """Sum over the bits of a tensor, the same on every device and in every order of summation.

    Args:
        x: any dtype of 1, 2, 4 or 8 bytes. A NaN equals itself, and -0 is not 0.

    Returns:
        Scalar int64, modulo 2**64. The rows of dimension 0 have different weights, so the checksum
        changes when two rows change places.
    """
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = x.detach().contiguous().view(integers[x.element_size()])
    rows = bits.flatten(1).sum(dim=1) if x.dim() > 1 else bits.flatten().long()
    # Odd weights lose no bit of a row. Adding 1 makes rows of zeros count too.
    weights = 2 * torch.arange(len(rows), device=x.device) + 1
    return ((rows + 1) * weights).sum()


def processes_that_differ(named: Mapping[str, Sequence[Tensor]]) -> dict[str, list[int]]:
    """Find the processes whose tensors differ from those of process 0. One exchange; every process
    gets the same answer.

    Args:
        named: name to tensors, with the same names on every process; their shapes may differ. All
            tensors are on the device where the process group exchanges them.

    Returns:
        Name to the processes that differ, without the names on which all agree. Empty in a single
        process, where no tensor is read.
    """
    if world_size() == 1 or not named:
        return {}
    own = torch.stack([checksum(x) for tensors in named.values() for x in tensors])
    gathered = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(gathered, own)
    lengths = [len(tensors) for tensors in named.values()]
    sums = [x.split(lengths) for x in torch.stack(gathered).cpu()]
    differing = {
        name: [i for i, x in enumerate(sums) if not torch.equal(x[at], sums[0][at])]
        for at, name in enumerate(named)
    }
    return {name: processes for name, processes in differing.items() if processes}
