"""How many processes a run has, and which this one is, before anything connects them."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this is the first of the processes that work together, as ``torchrun`` (``RANK``) or
    Slurm (``SLURM_PROCID``) has numbered them; so is a process alone."""
    return (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0"


def process_count(*, by_slurm: bool = True) -> int:
    """How many processes work together, as ``torchrun`` (``WORLD_SIZE``) or Slurm
    (``SLURM_NTASKS``) says.

    Args:
        by_slurm: whether Slurm's tasks are processes of one run. fairseq2 takes them for that where
            there is a ``SLURM_PROCID``, unless ``common.cluster`` is ``none``.
    """
    tasks = os.environ.get("SLURM_NTASKS") if by_slurm and "SLURM_PROCID" in os.environ else None
    return int(os.environ.get("WORLD_SIZE") or tasks or 1)
