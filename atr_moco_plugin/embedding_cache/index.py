"""Which folder holds the outputs of what, and whether they are the ones a run needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atr_moco_plugin.embedding_cache.fingerprint import Fingerprint, differences
from atr_moco_plugin.embedding_cache.outputs import Stage
from atr_moco_plugin.embedding_cache.shards import Shard
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically

FILE = "index.json"
_FORMAT = "atr-moco-plugin embedding cache 2"
_EARLIER = ("atr-moco-plugin embedding cache 1",)
_SHARD_BYTES = 128 * 2**20
_MOST_ITEMS = 4096
_PROBE_TOLERANCE = 0.02
"""Relative difference that counts as the same output: TF32 makes 1e-3 of it, a change of the
features or of a layer 0.1 or more."""


@dataclass(frozen=True)
class Index:
    """What a folder of outputs holds.

    Attributes:
        made_of: what decides about the outputs.
        stage: what is kept of each.
        width: size of a token.
        items: clips, or distinct captions.
        crops: of each item.
        items_a_shard: items of each shard but the last.
        probe: ``[width]``, what the encoder made of a test input when the folder was begun. It
            tells of a change that the weights do not show, such as another release of a library.
    """

    made_of: Fingerprint
    stage: Stage
    width: int
    items: int
    crops: int
    items_a_shard: int
    probe: list[float]

    @property
    def num_shards(self) -> int:
        """Files in all."""
        return -(-self.items // self.items_a_shard)

    @property
    def digest(self) -> str:
        """Hexadecimal digest of all of it, which every shard repeats."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def items_of(self, shard: int) -> range:
        """The items of a shard."""
        first = shard * self.items_a_shard
        return range(first, min(first + self.items_a_shard, self.items))


def items_a_shard(bytes_an_item: float) -> int:
    """Items that make a shard of about 128 MB, at most 4,096."""
    return int(max(1, min(_MOST_ITEMS, _SHARD_BYTES // max(1, bytes_an_item))))


def shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard."""
    return folder / f"{shard:06d}.safetensors"


def read_index(folder: Path) -> Index | None:
    """The index of a folder, ``None`` where it has none.

    Raises:
        InputError: if it is of another kind, of an earlier release or damaged.
    """
    path = folder / FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = values.pop("format")
        if found == _FORMAT:
            return to_index(values)
        if found not in _EARLIER:
            raise ValueError("it is of another format")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as ex:
        raise InputError(
            f"{path} is not the index of cached outputs, or damaged ({ex}): remove {folder}, or "
            "give `dataset.cache_embeddings` another folder"
        ) from ex
    raise InputError(
        f"{folder} was written by an earlier release of this package, whose caches have no "
        "checksums and no settings of the encoder, and is not used: remove the folder, and the "
        "next run writes it again"
    )


def to_index(values: dict[str, Any]) -> Index:
    """An index from its values as JSON has them."""
    return Index(**{**values, "stage": Stage(**values["stage"])})


def write_index(folder: Path, index: Index) -> None:
    """Begin a folder.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        write_atomically(folder / FILE, json.dumps({"format": _FORMAT, **asdict(index)}, indent=1))
    except OSError as ex:
        raise InputError(
            f"{folder} cannot be written ({ex.strerror or ex}): give `dataset.cache_embeddings` a "
            "folder that you may write to"
        ) from ex


def check_same(folder: Path, found: Index, expected: Index) -> None:
    """Refuse outputs of another model, other clips or other settings.

    Outputs that have more than is needed, such as tokens that no head reads, are fine.

    Raises:
        InputError: with what differs.
    """
    differ = differences(found.made_of, expected.made_of)
    if not differ and not found.stage.covers(expected.stage):
        differ = [f"what is kept: {found.stage} there, {expected.stage} here"]
    if not differ and _far(found.probe, expected.probe):
        differ = ["what the encoder makes of a test input, although its weights are the same"]
    if differ:
        raise InputError(
            f"{folder} has outputs of another run and is not used ({_listed(differ)}): remove the "
            "folder, or give `dataset.cache_embeddings` another one"
        )


def _listed(differ: Sequence[str], most: int = 3) -> str:
    more = len(differ) - most
    return "; ".join(differ[:most]) + (f"; and {more} more" if more > 0 else "")


def _far(a: Sequence[float], b: Sequence[float]) -> bool:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        return True
    return float(np.linalg.norm(x - y)) > _PROBE_TOLERANCE * float(np.linalg.norm(y))


def missing_shards(folder: Path, index: Index, *, verify: bool = False) -> list[int]:
    """Shards that are not there, damaged, or of a folder that was here before.

    Args:
        folder: of the shards.
        index: its index.
        verify: read every shard and compare its checksums; else its beginning is looked at.
    """
    digest, missing = index.digest, []
    for number in range(index.num_shards):
        try:
            shard = Shard(shard_path(folder, number))
        except InputError:
            missing.append(number)
            continue
        same = shard.made_of == digest and len(shard) == len(index.items_of(number))
        if not same or (verify and not shard.is_whole()):
            missing.append(number)
    return missing
