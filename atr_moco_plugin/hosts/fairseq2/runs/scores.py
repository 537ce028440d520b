"""What the validation scores of a run's checkpoints are scores of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq2.device import Device

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.processes import from_first
from atr_moco_plugin.hosts.fairseq2.runs.folder import read_json
from atr_moco_plugin.io.atomic import write_atomically

FILE = "scores/of.json"
"""In the folder of the checkpoints."""


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Each value that is there before and now and differs, such as ``seed was 1 and is 2``."""
    return "; ".join(
        f"{key} was {before[key]} and is {value}"
        for key, value in now.items()
        if key in before and before[key] != value
    )


def check_same(checkpoints: Path, made_of: Mapping[str, Any], device: Device) -> None:
    """Refuse scores of another kind, since the best checkpoint is chosen among all of them.

    Args:
        checkpoints: where the run saves.
        made_of: key of the configuration to its value, for everything that a score depends on.
        device: where the process group exchanges tensors.

    Raises:
        InputError: on every process, naming what has changed.
    """
    folder = (checkpoints / FILE).parent

    def check() -> None:
        before = read_json(checkpoints / FILE) if any(folder.glob("step_*.txt")) else {}
        changed = changes(before, made_of)
        if changed:
            raise InputError(
                f"The validation scores in {folder} are not comparable with those of this run, and "
                f"the best checkpoint is chosen by them: {changed}. Change it back, give another "
                f"output folder, or remove {folder} to choose among later checkpoints alone."
            )
        write_atomically(checkpoints / FILE, json.dumps(dict(made_of), indent=2) + "\n")

    from_first(check, device)
