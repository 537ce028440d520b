"""Which loop trains a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Literal

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import flattened
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.start import Start
from atr_moco_plugin.io.processes import is_first_process, process_count

_PACKAGES = {"fairseq2": "fairseq2", "transformers": "accelerate"}
"""A loop to what it needs besides this package, which is an extra of the loop's name."""

_OWN_RUNS = "For a run of its own in each task, set RANK=0 and WORLD_SIZE=1 in its environment."


def chosen_loop(
    config: FinetuneConfig, other: Mapping[str, Any], start: Start, *, in_memory: bool
) -> Literal["fairseq2", "transformers"]:
    """The loop of a run.

    Args:
        config: what the user has set.
        other: keys that only fairseq2 knows.
        start: what the run starts from.
        in_memory: whether the pairs are no data set that a configuration names.

    Raises:
        InputError: for a loop that is not installed or cannot do it, and for keys that it does not
            know.
    """
    has = {name: find_spec(package) is not None for name, package in _PACKAGES.items()}
    needs_trainer = (
        f"`init` is {start.name}, a ClapModel"
        if start.kind == "clap"
        else "the pairs are in memory"
        if in_memory
        else None
    )
    if config.loop == "fairseq2" and needs_trainer is not None:
        raise InputError(
            f"`loop` is fairseq2, but {needs_trainer}, which the loop of transformers trains: "
            "leave `loop` out."
        )
    loop: Literal["fairseq2", "transformers"] = "transformers"
    if config.loop == "fairseq2" or (
        config.loop == "auto" and needs_trainer is None and has["fairseq2"]
    ):
        loop = "fairseq2"
    if not has[loop]:
        raise InputError(
            f"The loop `{loop}` needs {_PACKAGES[loop]}, which is not installed: "
            f"pip install 'atr-moco-plugin[{loop}]'."
        )
    if other and loop == "transformers":
        key = next(iter(flattened(other)))
        near = difflib.get_close_matches(key, flattened(asdict(FinetuneConfig())), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise InputError(
            f"`{key}` is not known to the loop of transformers: correct its name or leave it out; "
            f"keys of fairseq2 need `loop=fairseq2`.{hint}"
        )
    return loop


def run_processes(loop: str, other: Mapping[str, Any]) -> int:
    """How many processes train a run together.

    Args:
        loop: that trains it.
        other: keys that only fairseq2 knows.

    Raises:
        InputError: for several with the loop of transformers, and for a run of its own in a task
            that Slurm numbers among others.
    """
    processes = process_count(by_slurm=other.get("common", {}).get("cluster") != "none")
    if loop == "transformers" and processes > 1:
        raise InputError(
            f"The loop of transformers fine-tunes in one process, and there are {processes}: start "
            "it without torchrun, under Slurm with `srun --ntasks=1`, or set `loop` to fairseq2, "
            f"which trains in several. {_OWN_RUNS}"
        )
    if processes == 1 and not is_first_process():
        raise InputError(f"This process is not the first, and there is one process. {_OWN_RUNS}")
    return processes
