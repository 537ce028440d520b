"""Exchanges between processes, and checks that all processes hold the same.

Every function is the identity, or needs no exchange, in a single process. Imports ``torch`` and
``tensors`` alone; nothing here knows audio, text or retrieval.
"""

from atr_moco_plugin.distributed.agreement import (
    ProcessesDifferError,
    checksum,
    processes_that_differ,
)
from atr_moco_plugin.distributed.collectives import (
    any_process,
    broadcast_bool,
    gather,
    gather_counts,
    gather_numbers,
    gather_packed,
    gather_padded,
    gather_values,
    mean_weight,
    pad_to,
    process_index,
    world_size,
)

__all__ = [
    "ProcessesDifferError",
    "any_process",
    "broadcast_bool",
    "checksum",
    "gather",
    "gather_counts",
    "gather_numbers",
    "gather_packed",
    "gather_padded",
    "gather_values",
    "mean_weight",
    "pad_to",
    "process_index",
    "processes_that_differ",
    "world_size",
]
