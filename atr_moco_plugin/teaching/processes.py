"""The processes of torch's default group, for what they write together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from atr_moco_plugin.distributed import gather_values, process_index, world_size
from atr_moco_plugin.embedding_cache.build import Ranks, raise_problem


def group_ranks(device: torch.device) -> Ranks:
    """The processes of the default group; one where there is none.

    Args:
        device: where the process group exchanges tensors.
    """
    return Ranks(
        process_index(), world_size(), partial(_from_first, device), partial(_agree, device)
    )


def _agree(device: torch.device, problem: str | None) -> None:
    raise_problem(next((x for x in gather_values(problem, device) if x is not None), None))


def _from_first(device: torch.device, make: Callable[[], Any]) -> Any:
    result = problem = None
    if process_index() == 0:
        try:
            result = make()
        except (ValueError, OSError) as ex:
            problem = str(ex)
    result, problem = gather_values((result, problem), device)[0]
    raise_problem(problem)
    return result
