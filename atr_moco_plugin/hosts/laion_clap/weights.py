"""Reading and writing CLAP weights, without executing anything that a file contains."""

from __future__ import annotations

import _codecs
import os
import pickle
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.laion_clap.model import POSITION_IDS, is_own

_EXPECTED = "a checkpoint of LAION-CLAP (epoch_N.pt, or weights alone)"


def numpy_scalars() -> AbstractContextManager[Any]:
    """Let ``torch.load`` with ``weights_only=True`` read numpy numbers.

    LAION-CLAP's schedule leaves its learning rate in the optimizer as one, so that its own
    ``--resume`` fails from torch 2.6 on, where that is the default.
    """
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32")]
    # Files of numpy 1 and 2 name the function differently; either may be read by the other.
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return torch.serialization.safe_globals(
        [np.dtype, _codecs.encode, *kinds, *((scalar, name) for name in names)]
    )


def has_criterion(path: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint is of a training with this host.

    Raises:
        ValueError: when the file cannot be read.
    """
    return any(map(is_own, _read(path)))


def read_clap(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """CLAP's own weights from any checkpoint of it: of its training, of this host, or plain.

    Args:
        path: the file.

    Returns:
        Name to tensor, on the CPU, without the prefix of DDP and without what is not CLAP's.

    Raises:
        ValueError: when the file is not there or is no CLAP checkpoint.
    """
    state = _read(path)
    if "logit_scale_a" not in state or "audio_projection.0.weight" not in state:
        raise InputError(f"{path} holds no CLAP weights; expected {_EXPECTED}.")
    return {name: value for name, value in state.items() if not is_own(name)}


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    if not os.path.isfile(path):
        raise InputError(f"{path} is not a file; expected {_EXPECTED}.")
    try:
        with numpy_scalars():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as ex:
        reason = str(ex).strip().splitlines()[0]
        raise InputError(f"{path} cannot be read as {_EXPECTED}: {reason}") from ex
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_clap(clap: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load what :func:`read_clap` read into LAION's model.

    Raises:
        ValueError: when it does not fit, with the names that differ.
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
        checkpoint: of a training with this host.
        out: the file to write; the momentum copies, queues and the matching head are not in it.

    Returns:
        How many tensors it holds.

    Raises:
        ValueError: see :func:`read_clap`.
    """
    state = read_clap(checkpoint)
    if POSITION_IDS not in state:
        # `load_ckpt` deletes this buffer before it loads the rest strictly, and fails without it.
        rows = len(state["text_branch.embeddings.position_embeddings.weight"])
        state[POSITION_IDS] = torch.arange(rows)[None]
    torch.save(state, out)
    return len(state)
