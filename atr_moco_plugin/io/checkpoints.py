"""Files of saved tensors: read without running code, and damage told from what torch refuses."""

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
    """What ``torch.save`` wrote, on the CPU, by ``torch.load(weights_only=True)``.

    Args:
        file: the file.
        mmap: map it into memory, so that a tensor is read when it is used.
        safe_globals: classes and functions that may be in this file beside those that are safe
            for torch or were given to ``torch.serialization.add_safe_globals``.

    Raises:
        DamagedFileError: for a file that is damaged.
        InputError: for a file that is whole and that torch refuses, with what it names and what to
            do, and for an archive that is larger inside than it is.
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
    ``torch.load(weights_only=True)`` refuses; those of an old or foreign file are not found."""
    with allow_numpy():
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        # A foreign file raises nearly anything.
        except Exception:
            return []


def problem_with(file: Path) -> str | None:
    """What is missing or damaged of a file of ``torch.save`` or a ``.safetensors`` file.

    Every byte of a ``torch.save`` file is compared with its checksum, which ``torch.load`` leaves
    out, so that a file that lost a block to a crash or a bad disk is found before training goes on
    from it. A ``.safetensors`` file and one in the format that torch had before 1.6 have no
    checksums: their sizes alone are compared.

    Args:
        file: the file.

    Returns:
        What follows the file's name in a sentence, such as ``"is half-written or damaged"``; None
        where the file is whole and ``torch.load(weights_only=True)`` reads it.

    Raises:
        InputError: for a file that is whole and that torch refuses, as :func:`read_torch`.
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
    """What is missing or damaged in a checkpoint's folder.

    Args:
        folder: the checkpoint.
        parts: what it has to have, in a word or two, to the pattern of its files, at least one.

    Returns:
        What follows the folder's name in a sentence; None where it is sound.

    Raises:
        InputError: for a file that is whole and that torch refuses, as :func:`read_torch`.
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
    """The checkpoints of a training, whole or not: folders named by a prefix and a step.

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
    """What is damaged, found without loading anything; None where nothing is."""
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
    # At its end torch's context removes what it was given, so nothing that was there before.
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([x for x in (*_of_numpy(), *more) if x not in before]):
        yield


def _of_numpy() -> list[Any]:
    """What NumPy's random states and scalars name, under the names of NumPy 1 and 2, and under
    those of this version. Nothing of it runs code that comes with a file."""
    array, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    return [
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("u4", "i4", "i8", "f4", "f8", "?")},
        *((array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
