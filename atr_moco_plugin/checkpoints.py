"""Whether a file of saved tensors is whole and harmless, asked before anything loads it."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

_TORCH = "torch torch.storage".split()
_HARMLESS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    # The bytes of an array, in the older pickle protocols.
    "_codecs.encode",
    *(f"{x}.{name}" for x in _TORCH for name in dir(torch) if name.endswith("Storage")),
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    *(f"torch.{name}" for name, x in vars(torch).items() if isinstance(x, torch.dtype)),
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_wrapper_subclass",
    "torch._tensor._rebuild_from_type_v2",
    "torch.serialization._get_layout",
    # The shards of FSDP2.
    "torch.distributed.device_mesh.DeviceMesh",
    "torch.distributed.tensor.DTensor",
    "torch.distributed.tensor._dtensor_spec.DTensorSpec",
    "torch.distributed.tensor._dtensor_spec.TensorMeta",
    "torch.distributed.tensor.placement_types.Replicate",
    "torch.distributed.tensor.placement_types.Shard",
    # NumPy's random state, under the module names of NumPy 1 and 2.
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{x}.multiarray._reconstruct" for x in ("core", "_core")),
    *(f"numpy.{x}.multiarray.scalar" for x in ("core", "_core")),
    *(f"numpy.{x}.numeric._frombuffer" for x in ("core", "_core")),
}
"""Everything that tensors, their shards and random states name in a pickle. None of it runs code
that comes with the file."""


def problem_with(file: Path) -> str | None:
    """What is wrong with a file of ``torch.save`` or a ``.safetensors`` file.

    Nothing that a pickle in it names is called. Every byte of a ``torch.save`` file is compared
    with its checksum, which ``torch.load`` leaves out, so that a file that lost a block to a crash
    or a bad disk is found before training goes on from it. A ``.safetensors`` file has no
    checksums; it is compared with the sizes in its header.

    Args:
        file: the file.

    Returns:
        What follows the file's name in a sentence, such as ``"is half-written or damaged"``; None
        where the file is sound.
    """
    if not file.is_file():
        return "is missing"
    if file.suffix == ".safetensors":
        return _problem_with_safetensors(file)
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(item.file_size for item in archive.infolist()) > file.stat().st_size:
                return "holds more bytes than it has: it is compressed, as `torch.save` never does"
            broken = archive.testzip()
            if broken is not None:
                return f"is damaged: {broken} in it does not have its checksum"
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(pickles) != 1:
                return "is not a file of `torch.save`"
            return _problem_with_pickle(archive.read(pickles[0]))
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError):
        return "is half-written or damaged"
    except (OSError, RuntimeError, ValueError, UnicodeError) as ex:
        return f"cannot be read: {' '.join(str(ex).split())}"


def problem_in(folder: Path, parts: Mapping[str, str]) -> str | None:
    """What is wrong with the files of a checkpoint's folder.

    Args:
        folder: the checkpoint.
        parts: what it has to have, in a word or two, to the pattern of its files, at least one.

    Returns:
        What follows the folder's name in a sentence; None where it is sound.
    """
    for part, pattern in parts.items():
        files = sorted(folder.glob(pattern))
        if not files:
            return f"has no {part}"
        for file in files:
            problem = problem_with(file)
            if problem is not None:
                return f"is not sound: {file.relative_to(folder)} {problem}"
    return None


def _problem_with_safetensors(file: Path) -> str | None:
    try:
        with safe_open(file, framework="pt"):
            return None
    except (SafetensorError, OSError, ValueError):
        return "is half-written or damaged"


def _problem_with_pickle(data: bytes) -> str | None:
    try:
        _Inspector(io.BytesIO(data)).load()
    except _ForeignName as ex:
        return f"names the Python object `{ex}`, which no checkpoint needs, and is not loaded"
    # A damaged pickle can raise anything; nothing but stand-ins is called here.
    except Exception:
        return "is half-written or damaged"
    return None


class _ForeignName(Exception):
    """A pickle names something that is not part of a tensor."""


class _StandIn:
    """Takes the place of everything that a pickle names: it accepts all and does nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class _Inspector(pickle.Unpickler):
    """Runs through a pickle without importing or calling what it names."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _HARMLESS:
            raise _ForeignName(f"{module}.{name}")
        return _StandIn

    def persistent_load(self, pid: Any) -> Any:
        return _StandIn()
