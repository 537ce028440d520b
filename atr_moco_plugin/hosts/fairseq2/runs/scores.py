"""What the validation scores of a run's checkpoints are scores of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq2.device import Device

from atr_moco_plugin.hosts.fairseq2.runs.recorded import check_recorded

FILE = "scores/of.json"
"""In the folder of the checkpoints."""


def check_same(
    checkpoints: Path, made_of: Mapping[str, Any], device: Device, *, keep: bool = True
) -> None:
    """Refuse scores of another kind, since the best checkpoint is chosen among all of them.

    Args:
        checkpoints: where the run saves.
        made_of: key of the configuration to its value, for everything that a score depends on.
        device: where the process group exchanges tensors.
        keep: note them for the next time; without it a part of them is enough.

    Raises:
        InputError: on every process, naming what has changed.
    """
    folder = (checkpoints / FILE).parent
    check_recorded(
        checkpoints / FILE,
        made_of,
        lambda: any(folder.glob("step_*.txt")),
        lambda changed: (
            f"The validation scores in {folder} are not comparable with those of this run, and "
            f"the best checkpoint is chosen by them: {changed}. Change it back, give another "
            f"output folder, or remove {folder} to choose among later checkpoints alone."
        ),
        device,
        keep=keep,
    )
