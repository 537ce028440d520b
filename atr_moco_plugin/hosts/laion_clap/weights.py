"""Reading and writing CLAP weights, without executing anything that a file contains."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion.matching_start import head_is_trained
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap.model import HEAD, POSITION_IDS, is_own
from atr_moco_plugin.io.atomic import new_file, unwritable
from atr_moco_plugin.io.checkpoints import read_torch

_EXPECTED = "a checkpoint of LAION-CLAP (epoch_N.pt, or weights alone)"
_METRIC = "moco.metric"
"""Of :class:`~atr_moco_plugin.criterion.m_ltm.MLtm`."""


def has_criterion(path: str | os.PathLike[str]) -> bool:
    """Whether a training with this host saved a checkpoint.

    Raises:
        InputError: the file cannot be read.
    """
    return any(map(is_own, _read(path)))


def read_clap(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """CLAP's own weights from any of its checkpoints: of its training, of this host, or plain.

    Args:
        path: the file.

    Returns:
        Name to tensor, on the CPU, without the prefix of DDP and without entries of this host.

    Raises:
        InputError: the file does not exist or is no CLAP checkpoint.
    """
    return {name: value for name, value in _read_clap(path).items() if not is_own(name)}


def read_towers(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """CLAP's own weights as :func:`read_clap` reads them, and those of a trained matching head.

    Args:
        path: the file.

    Returns:
        Two mappings of names to tensors; the second is empty where there is no head, or
        its matching loss has not begun.

    Raises:
        InputError: the file does not exist, is no CLAP checkpoint, or has a learned distance.
    """
    state, prefix = _read_clap(path), f"{HEAD}."
    _check_cosine(path, state)
    head = {x.removeprefix(prefix): t for x, t in state.items() if x.startswith(prefix)}
    if not head_is_trained(state, "moco."):
        head = {}
    return {name: x for name, x in state.items() if not is_own(name)}, head


def _read_clap(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    state = _read(path)
    if "logit_scale_a" not in state or "audio_projection.0.weight" not in state:
        raise InputError(f"{path} holds no CLAP weights; expected {_EXPECTED}.")
    return state


def _check_cosine(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Refuse what an earlier version trained with a distance, which CLAP's weights cannot hold."""
    if _METRIC in state:
        raise InputError(
            f"{path} was trained with a learned distance, which is not in weights of CLAP: they "
            "would rank by the plain cosine. Train the criterion in another host; --pretrained "
            "takes the towers of this file."
        )


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    if not os.path.isfile(path):
        raise InputError(f"{path} is not a file; expected {_EXPECTED}.")
    try:
        checkpoint = read_torch(Path(path))
    except InputError as ex:
        raise InputError(f"{path} cannot be read as {_EXPECTED}: {ex}") from ex
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_clap(clap: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load the result of :func:`read_clap` into LAION's model.

    Raises:
        InputError: it does not fit, with the names that differ.
    """
    try:
        clap.load_state_dict({k: v for k, v in weights.items() if k != POSITION_IDS})
    except RuntimeError as ex:
        raise InputError(
            "The weights of --pretrained do not fit the model; --amodel, --tmodel and "
            f"--enable-fusion must be those they were trained with. {ex}"
        ) from ex


def export(checkpoint: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write CLAP's weights alone, as ``CLAP_Module.load_ckpt`` reads them.

    Args:
        checkpoint: from a training with this host.
        out: the new file to write, without momentum copies, queues and matching head.

    Returns:
        How many tensors it holds.

    Raises:
        InputError: see :func:`read_towers`; ``out`` is there already, its folder is not, or it
            cannot be written.
    """
    path = Path(out)
    _check_new(path, checkpoint)
    state, _ = read_towers(checkpoint)
    if POSITION_IDS not in state:
        # `load_ckpt` deletes this buffer before it loads the rest strictly, and fails without it.
        rows = len(state["text_branch.embeddings.position_embeddings.weight"])
        state[POSITION_IDS] = torch.arange(rows)[None]
    try:
        with new_file(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as ex:  # the second is torch's, such as of a full disk
        error = ex if isinstance(ex, OSError) else OSError(str(ex))
        raise InputError(unwritable(path, error)) from ex
    return len(state)


def _check_new(out: Path, checkpoint: str | os.PathLike[str]) -> None:
    """Refuse to write over anything: a checkpoint has momentum copies, queues and the optimizer's
    state, which the exported weights lack."""
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a new file in it.")
    if out.exists() and os.path.exists(checkpoint) and out.samefile(checkpoint):
        raise InputError(
            f"{out} is the checkpoint itself, which would be lost: give another file to write."
        )
    if out.exists():
        raise InputError(f"{out} is there already: give another file, or remove it first.")
    if not out.parent.is_dir():
        raise InputError(
            f"{out} cannot be written: there is no folder {out.parent}; make it first."
        )
