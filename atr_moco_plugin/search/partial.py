"""Embeddings that are done while others are not: an interrupted command goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import new_file, unwritable, write_atomically
from atr_moco_plugin.io.lock import FolderLock
from atr_moco_plugin.search.walk import Found

_ABOUT = "about.json"
_Key: TypeAlias = tuple[str, str, int, int, int]


class PartialEmbeddings:
    """A folder beside the output, with a file for each group of sounds.

    A sound counts as done while its path, member, size and both times are what they were. As a
    context it lets others take the folder at its end.

    Args:
        folder: made where it does not exist.
        about: what makes the embeddings.

    Raises:
        InputError: if the folder was left by another model, is in use or cannot be written.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._folder = folder
        self._lock = FolderLock(folder)
        try:
            self._open(folder, about)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> PartialEmbeddings:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _open(self, folder: Path, about: dict[str, Any]) -> None:
        try:
            known = folder / _ABOUT
            if not known.exists():
                write_atomically(known, json.dumps(about))
            elif json.loads(known.read_text(encoding="utf-8")) != about:
                raise InputError(
                    f"{folder} has embeddings of another model or dtype, from a command that did "
                    "not end: remove it, or take that model."
                )
            self._done: dict[_Key, NDArray[np.float32]] = {}
            for file in sorted(folder.glob("*.safetensors")):
                self._read(file)
        except (OSError, ValueError) as ex:
            if isinstance(ex, InputError):
                raise
            raise InputError(f"{folder} cannot be used ({ex}): remove it and try again.") from ex
        self._next = 1 + max((int(x.stem) for x in folder.glob("*.safetensors")), default=-1)

    def is_empty(self) -> bool:
        """Whether nothing is done yet, also not of sounds that this command was not given."""
        return not self._done

    def get(self, found: Found) -> NDArray[np.float32] | None:
        """The embedding ``[d]`` of a sound; None where it is not done."""
        return self._done.get(_key(found))

    def add(self, sounds: Sequence[Found], embeddings: NDArray[np.float32]) -> None:
        """Keep the embeddings ``[N, d]`` of N sounds, on disk too."""
        if not sounds:
            return
        path = self._folder / f"{self._next:08d}.safetensors"
        keys = [_key(found) for found in sounds]
        tensors = {"embeddings": np.ascontiguousarray(embeddings)}
        try:
            with new_file(path) as temporary:
                save_file(tensors, temporary, {"keys": json.dumps(keys)})
        except OSError as ex:
            raise InputError(unwritable(path, ex)) from ex
        self._next += 1
        self._done.update(zip(keys, embeddings, strict=True))

    def remove(self) -> None:
        """Remove the folder, when the output is written."""
        shutil.rmtree(self._folder)

    def _read(self, file: Path) -> None:
        try:
            with safe_open(file, framework="numpy") as content:
                keys = json.loads(content.metadata()["keys"])
                rows = content.get_tensor("embeddings")
        except (SafetensorError, KeyError):
            file.unlink()  # the disk was full or the machine stopped: it is made again
            return
        self._done.update(zip(map(tuple, keys), rows, strict=True))


def _key(found: Found) -> _Key:
    return (found.path, found.member, found.size, found.mtime_ns, found.ctime_ns)
