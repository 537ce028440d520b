"""Which of the processes of a run this one is, before anything connects them."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this is the first of the processes that work together, as ``torchrun`` (``RANK``) or
    Slurm (``SLURM_PROCID``) has numbered them; so is a process alone."""
    return (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0"
