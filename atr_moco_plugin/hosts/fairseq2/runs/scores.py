"""What the validation scores of a run's checkpoints are scores of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairseq2.device import Device

from atr_moco_plugin.distributed import gather_values, process_index
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically

FILE = "scores/of.json"
"""In the folder of the checkpoints."""


def splits_in_two_roles(train: str, valid: str | None, test: str | None) -> Iterator[str]:
    """One sentence for each split whose figures say less than they seem to.

    Args:
        train: the split that is trained on.
        valid: the split whose score chooses the checkpoint.
        test: the split that is evaluated at the end.
    """
    for key, split in (("dataset.valid_split", valid), ("evaluation.test_split", test)):
        if split == train:
            yield f"`{key}` is {split}, which is trained on: its figures are of known clips."
    if test is not None and test == valid:
        yield (
            f"`evaluation.test_split` is {test}, which also chooses the checkpoint: its figures "
            "are too good."
        )


def check_same(checkpoints: Path, of: Mapping[str, Any], device: Device) -> None:
    """Refuse to go on with scores of something else, among which the best would be chosen.

    Args:
        checkpoints: where the run saves.
        of: key of the configuration to its value, for everything that a score depends on.
        device: of this process.

    Raises:
        InputError: on every process, naming what has changed.
    """
    folder = (checkpoints / FILE).parent
    problem = None
    if process_index() == 0:
        before = _read(checkpoints / FILE) if any(folder.glob("step_*.txt")) else {}
        changed = [
            f"{key} was {before[key]} and is {value}"
            for key, value in of.items()
            if key in before and before[key] != value
        ]
        if changed:
            problem = (
                f"The validation scores in {folder} are not comparable with those of this run, and "
                f"the best checkpoint is chosen by them: {'; '.join(changed)}. Change it back, give "
                f"another output folder, or remove {folder} to choose among later checkpoints alone."
            )
    problem = gather_values(problem, device)[0]
    if problem is not None:
        raise InputError(problem)
    if process_index() == 0:
        write_atomically(checkpoints / FILE, json.dumps(dict(of), indent=2) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
