"""What a training was begun with, kept in its folder of logs and compared by ``--resume``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from atr_moco_plugin.criterion import Atc
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap.options import kept_flags
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.changes import changes
from atr_moco_plugin.io.json_files import object_if_whole

FILE = "criterion.json"
"""Beside ``params.txt``, which has LAION-CLAP's own arguments alone."""


_LENGTH = "total_steps"


def write_kept(logs: Path, criterion: Atc) -> None:
    """Write the options of a criterion, and how long it trains, into a run's folder of logs."""
    options = {**kept_flags(type(criterion), criterion.config), _LENGTH: criterion.total_steps}
    write_atomically(logs / FILE, json.dumps(options, indent=2) + "\n")


def check_resumed(checkpoint: Path, criterion_class: type[Atc], config: Any) -> None:
    """Refuse to go on with other options of the criterion than a checkpoint was trained with. One
    that has been moved out of its folder of logs does not say them, and is taken.

    Args:
        checkpoint: a file ``logs/NAME/checkpoints/epoch_N.pt``.
        criterion_class: the criterion.
        config: its options.

    Raises:
        InputError: naming what has changed.
    """
    if changed := changes(_kept(checkpoint), kept_flags(criterion_class, config)):
        raise InputError(
            f"--resume {checkpoint} cannot go on with other options: {changed}. Give it "
            "those it began with, or start from its weights with --pretrained."
        )


def kept_length(checkpoint: Path) -> int | None:
    """Optimizer steps that the training was to have whose checkpoint it is; None where that is not
    known, see :func:`check_resumed`."""
    steps = _kept(checkpoint).get(_LENGTH)
    return steps if isinstance(steps, int) else None


def _kept(checkpoint: Path) -> dict[str, Any]:
    return object_if_whole(checkpoint.absolute().parent.parent / FILE)
