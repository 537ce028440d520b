"""The private names of PyTorch that this package calls, one function each.
``tests/tensors/test_internals.py`` says what to do where a release moves one.

Not here, since they cannot be wrapped: classes override ``Module``'s hooks ``_apply``,
``_load_from_state_dict`` and ``_save_to_state_dict`` (``tensors/float32.py``, ``queue/buffer.py``,
``criterion/``), and ``optim/step_hook.py`` and ``safety/finite.py`` read ``found_inf``, which a
gradient scaler puts on a fused optimizer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import _CHECKPOINT_PREFIX
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrize import ParametrizationList

_WRAPPERS = (_CHECKPOINT_PREFIX, "_orig_mod.")


def unwrapped_name(name: str) -> str:
    """A parameter's name without the prefixes of activation checkpointing and ``torch.compile``."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def lerp_all_(averages: list[Tensor], targets: list[Tensor], weight: float) -> None:
    """``average += weight * (target - average)`` for many tensors, in few kernels and in place."""
    torch._foreach_lerp_(averages, targets, weight)


def write_count(x: Tensor) -> int:
    """How often a tensor was written in place. Fused optimizers and those of sharded weights do not
    count."""
    return x._version


def exclude_from_ddp_broadcast(module: Module, names: Iterable[str]) -> None:
    """Keep buffers out of the broadcast from process 0 that DDP makes before each forward pass.

    Args:
        module: what DDP will wrap.
        names: of buffers that are equal on all processes anyway, such as large queues.
    """
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, list(names))


def empty_shared(rows: int, columns: int) -> Tensor:
    """``[rows, columns]`` float32, not filled, in memory that other processes can map."""
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(4 * rows * columns)
    empty: Tensor = torch.empty(0).set_(storage, 0, (rows, columns), (columns, 1))
    return empty


def is_weight_norm(module: Module) -> bool:
    """Whether a module is the parametrization of a weight as gain times direction."""
    return isinstance(module, ParametrizationList) and type(module[0]).__name__ == "_WeightNorm"


def compiler_is_imported() -> bool:
    """Whether ``torch.compile`` was used so far. Importing it takes as long as all the rest."""
    return "torch._dynamo" in sys.modules


def allow_recompilations(graphs: int) -> None:
    """Let ``torch.compile`` make at least this many graphs of one function."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, graphs)
