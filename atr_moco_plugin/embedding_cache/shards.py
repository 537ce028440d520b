"""Files of outputs: each is written whole under another name and renamed, and memory-mapped.

A shard is a safetensors file. It has the outputs of a run of items, an item being a clip with its
crops or one caption. Crops that are equal, as those of a short clip are, share an output.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from atr_moco_plugin.embedding_cache.outputs import Output, Stage
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import new_file


@dataclass
class ShardContent:
    """The outputs of some items.

    Attributes:
        outputs: one for each that differs.
        rows: for each item, the row in ``outputs`` of each of its crops; empty for an item that
            cannot be used.
        bad: place of such an item in ``rows``, and the reason.
        files: place of an item to what its file was, see
            :mod:`~atr_moco_plugin.embedding_cache.audio_files`.
    """

    outputs: list[Output] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    files: dict[int, list[Any]] = field(default_factory=dict)


def write_shard(path: Path, content: ShardContent, stage: Stage, crops: int, made_of: str) -> None:
    """Write a shard; nobody ever reads half of it.

    Args:
        path: where.
        content: what it has.
        stage: what of the outputs is kept.
        crops: of each item.
        made_of: digest of the index that the shard belongs to.

    Raises:
        InputError: if it cannot be written, as on a full disk.
    """
    rows = np.full((len(content.rows), crops), -1, np.int64)
    for item, own in enumerate(content.rows):
        if own:
            rows[item] = own
    tensors: dict[str, NDArray[Any]] = {"rows": rows}
    if stage.pooled:
        tensors["pooled"] = _stacked([x.pooled for x in content.outputs], np.float32)
    if stage.tokens:
        states = [x.states for x in content.outputs if x.states is not None]
        tensors["starts"] = np.cumsum([0, *(len(x) for x in states)], dtype=np.int64)
        tensors["states"] = np.concatenate(states) if states else np.zeros((0, 0), np.float16)
    about = json.dumps(
        {
            "made_of": made_of,
            "bad": content.bad,
            "files": content.files,
            "crc32": {name: zlib.crc32(x.tobytes()) for name, x in tensors.items()},
        }
    )
    try:
        with new_file(path) as temporary:
            save_file(tensors, temporary, {"about": about, "crc32": _crc32(about)})
    except OSError as ex:
        raise InputError(
            f"{path} cannot be written ({ex}): give `dataset.cache_embeddings` a folder that you "
            "may write to, on a disk with room"
        ) from ex


def _stacked(rows: Sequence[NDArray[Any] | None], dtype: type) -> NDArray[Any]:
    given = [row for row in rows if row is not None]
    return np.stack(given) if given else np.zeros((0, 0), dtype)


class Shard:
    """A shard that is read; it holds no file open, only mapped memory.

    Args:
        path: the file.

    Attributes:
        made_of: digest of the index that it belongs to.
        bad: place of an item that cannot be used, and the reason.
        files: place of an item to what its file was.

    Raises:
        InputError: if it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            # The object is a context that nothing ends: it lives as long as the shard.
            opened: Any = safe_open
            file = opened(path, framework="np")
            metadata = file.metadata()
            if metadata["crc32"] != _crc32(metadata["about"]):
                raise ValueError("a checksum differs")
            about = json.loads(metadata["about"])
            self._rows: NDArray[np.int64] = file.get_tensor("rows")
            names = set(file.keys())
            self._starts = file.get_tensor("starts") if "starts" in names else None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as ex:
            raise InputError(
                f"{path} is missing or damaged ({ex}): remove it, and the next run writes it again"
            ) from ex
        self._file = file
        self._crc32: dict[str, int] = about["crc32"]
        self._pooled = file.get_slice("pooled") if "pooled" in names else None
        self._states = file.get_slice("states") if "states" in names else None
        self.made_of: str = about["made_of"]
        self.bad = _by_number(about["bad"])
        self.files = _by_number(about["files"])

    def __len__(self) -> int:
        """Number of items."""
        return len(self._rows)

    def is_whole(self) -> bool:
        """Whether every number is what was written; all of the file is read for it."""
        return {*self._file.keys()} == {*self._crc32} and all(
            zlib.crc32(self._file.get_tensor(name)) == crc for name, crc in self._crc32.items()
        )

    def lengths(self) -> NDArray[np.int64]:
        """``[items]``, tokens of each item's first crop; 0 of one that could not be used, and where
        no tokens are kept."""
        if self._starts is None:
            return np.zeros(len(self), np.int64)
        rows = self._rows[:, 0]
        counts: NDArray[np.int64] = np.diff(self._starts, append=self._starts[-1:])[rows]
        return np.where(rows >= 0, counts, 0)

    def get(self, item: int, crop: int, needed: Stage) -> Output:
        """One output, of which only what is needed is read.

        Args:
            item: its place in the shard.
            crop: which of its crops.
            needed: what is wanted of it; the shard has it.

        Raises:
            InputError: if the item could not be used when the shard was written.
        """
        if item in self.bad:
            raise InputError(self.bad[item])
        row = int(self._rows[item, crop])
        pooled = self._pooled[row : row + 1][0] if needed.pooled and self._pooled else None
        states = None
        if needed.tokens and self._states is not None and self._starts is not None:
            start, stop = (int(x) for x in self._starts[row : row + 2])
            # safetensors refuses an empty run at the end.
            empty = np.zeros((0, self._states.get_shape()[1]), np.float16)
            states = self._states[start:stop] if start < stop else empty
        return Output(pooled, states)


def _crc32(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _by_number(values: Mapping[str, Any]) -> dict[int, Any]:
    """JSON has texts alone for keys."""
    return {int(number): value for number, value in values.items()}
