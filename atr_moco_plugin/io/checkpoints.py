"""Files of saved tensors, read without running code. Damaged files and files that torch refuses are
two different errors."""

from __future__ import annotations

import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from atr_moco_plugin.errors import InputError

HALF_WRITTEN = "is half-written or damaged"


class DamagedFileError(InputError):
    """A file that is cut off, or whose bytes do not have their checksum."""


def read_torch(file: Path, *, mmap: bool = False, safe_globals: Iterable[Any] = ()) -> Any:
    """Read a file of ``torch.save`` to the CPU with ``torch.load(weights_only=True)``.

    Args:
        file: the file.
        mmap: map it into memory, so that a tensor is read when it is used.
        safe_globals: further classes and functions that may be in this file; torch has its own
            list, and plugins add to it with ``torch.serialization.add_safe_globals``.

    Raises:
        DamagedFileError: for a file that is damaged.
        InputError: for a whole file that torch refuses, with the names of the refused classes and
            what to do, and for an archive whose content is larger than its file.
        OSError: where the file cannot be read.
    """
    zipped = zipfile.is_zipfile(file)
    if zipped:
        _check_size(file)
    with allow_numpy(safe_globals):
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and zipped)
        except OSError:
            raise
        # A damaged or foreign file raises nearly anything.
        except Exception as ex:
            problem = _damage(file)
            # A file from before torch 1.6 that is cut off among its tensors.
            if problem is None and "unexpected EOF" in str(ex):
                problem = HALF_WRITTEN
            if problem is not None:
                raise DamagedFileError(f"{file} {problem}.") from ex
            raise InputError(f"{file} {_refusal(file, ex)}") from ex


def unsafe_globals(file: Path) -> list[str]:
    """Names of the classes and functions in a file of ``torch.save`` that
    ``torch.load(weights_only=True)`` refuses; empty for a file in a very old or foreign format."""
    with allow_numpy():
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        # A foreign file raises nearly anything.
        except Exception:
            return []


def problem_with(file: Path) -> str | None:
    """Whether a file of ``torch.save`` or a ``.safetensors`` file is whole, and if not, why.

    All bytes of a ``torch.save`` file are compared with its checksums, which ``torch.load`` does
    not do. So a file that lost a block to a crash or a bad disk is found before training resumes
    from it. A ``.safetensors`` file and a file in torch's format before 1.6 have no checksums: only
    their sizes are compared.

    Args:
        file: the file.

    Returns:
        The rest of a sentence that begins with the file's name, such as ``"is half-written or
        damaged"``; None where the file is whole and ``torch.load(weights_only=True)`` reads it.

    Raises:
        InputError: for a whole file that torch refuses, as :func:`read_torch`.
    """
    if not file.is_file():
        return "is missing"
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt"):
                return None
        except (SafetensorError, OSError, ValueError):
            return HALF_WRITTEN
    try:
        problem = _damage(file)
        if problem is None:
            read_torch(file, mmap=True)
        return problem
    except DamagedFileError as ex:
        return str(ex).removeprefix(f"{file} ").removesuffix(".")
    except OSError as ex:
        raise InputError(f"{file} cannot be read ({ex.strerror or ex}): give access to it.") from ex


def problem_in(folder: Path, parts: Mapping[str, str]) -> str | None:
    """Whether a checkpoint's folder has all its parts, whole, and if not, what is wrong.

    Args:
        folder: the checkpoint.
        parts: name of each part to the pattern of its files, of which there is at least one, such
            as ``{"model": "model/*.pt"}``.

    Returns:
        The rest of a sentence that begins with the folder's name; None where it is sound.

    Raises:
        InputError: for a whole file that torch refuses, as :func:`read_torch`.
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


def step_folders(parent: Path, prefix: str) -> list[tuple[int, Path]]:
    """The checkpoint folders of a run, whole or not; their names are a prefix and a step.

    Args:
        parent: the folder that they are in.
        prefix: what comes before the step in their names, such as ``"checkpoint-"``.

    Returns:
        Step and folder of each, oldest first.
    """
    steps = {folder: folder.name.removeprefix(prefix) for folder in parent.glob(f"{prefix}*")}
    return sorted(
        (int(step), folder)
        for folder, step in steps.items()
        if step.isdecimal() and folder.is_dir()
    )


def _check_size(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            inside = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as ex:
        raise DamagedFileError(f"{file} {HALF_WRITTEN}.") from ex
    # torch.save compresses nothing, but torch.load would inflate whatever is compressed.
    if inside > file.stat().st_size:
        raise InputError(
            f"{file} holds more bytes than it has: it is compressed, as torch.save never does; "
            "save it again with torch.save."
        )


def _damage(file: Path) -> str | None:
    """What is damaged, found without loading the file; None if it is whole."""
    if zipfile.is_zipfile(file):
        _check_size(file)
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError):
            return HALF_WRITTEN
        return broken and f"is damaged: {broken} in it does not have its checksum"
    # Before torch 1.6 a file was five pickles with the tensors behind them.
    try:
        with file.open("rb") as stream:
            for _ in range(5):
                for _ in pickletools.genops(stream):
                    pass
    except OSError:
        raise
    # Any bytes may stand there.
    except Exception:
        return HALF_WRITTEN
    return None


def _refusal(file: Path, error: Exception) -> str:
    """Why torch does not read a file that is whole, and what to do."""
    said = " ".join(str(error).split())
    names = unsafe_globals(file) or re.findall(r"GLOBAL (\S+) was not an allowed", said)
    if names:
        # What a file names may hold anything.
        listed = ", ".join(ascii(name)[1:-1] for name in names[:5])
        return (
            f"names `{listed}`, which `torch.load(weights_only=True)` does not make, and is left "
            "where it is; if it is harmless and of a plugin of yours, let the plugin's module call "
            f"`torch.serialization.add_safe_globals([{listed}])`, or its state hold lists, dicts, "
            "numbers and tensors alone; else do not use the file."
        )
    said = said.partition("WeightsUnpickler error: ")[2] or said
    said = said.partition(" Check the documentation")[0]
    return (
        f"is no file that `torch.load(weights_only=True)` reads ({said[:200]}), and is left where "
        "it is; save lists, dicts, numbers and tensors alone, in torch's own pickle protocol 2."
    )


@contextmanager
def allow_numpy(more: Iterable[Any] = ()) -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` read NumPy's numbers and random states for a while.

    Args:
        more: further classes and functions that are safe.
    """
    # On exit torch's context removes all that it was given, so it is not given what was there.
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals(
        [x for x in (*_numpy_globals(), *more) if x not in before]
    ):
        yield


def _numpy_globals() -> list[Any]:
    """Classes and functions in pickles of NumPy's random states and scalars, under the names that
    NumPy 1, NumPy 2 and this version give them. None of them runs code that comes with a file."""
    array, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    return [
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("u4", "i4", "i8", "f4", "f8", "?")},
        *((array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
