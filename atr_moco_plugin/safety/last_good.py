"""Which checkpoint to go on from after a NaN, as a sentence of the error message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.safety.finite import not_finite


def last_good_checkpoint(
    folders: Sequence[Path],
    saved_in: Path,
    sound: bool,
    read: Callable[[Path], Iterable[Mapping[str, Tensor]]],
    *,
    resume: str,
    restart: str,
) -> str:
    """A sentence that names the checkpoint to go on from.

    Args:
        folders: checkpoints, newest first.
        saved_in: the folder that they are in.
        sound: whether the current weights are finite. Then the saved ones are finite too, because
            every step is checked before it is made. Otherwise each checkpoint is read, from the
            newest on; one that cannot be read is passed over.
        read: reads the model's weights from a checkpoint, name to tensor, in one part or several.
            What it cannot read, it tells with an InputError, an OSError or a SafetensorError.
        resume: how to go on from an older checkpoint, such as ``"give it to --resume."``
        restart: what to do where every checkpoint is broken, such as ``"begin a new training."``
    """
    if not folders:
        return f"Nothing was saved in {saved_in} yet."
    if sound:
        return f"The last good checkpoint is {folders[0]}."
    for folder in folders:
        try:
            broken = any(not_finite(weights) for weights in read(folder))
        # Of a message about NaN, which must not be lost: all processes wait for it.
        except (InputError, OSError, SafetensorError):
            continue
        if not broken:
            return f"The last good checkpoint is {folder}: {resume}"
    return f"No checkpoint in {saved_in} can be read and is without NaN or infinity: {restart}"
