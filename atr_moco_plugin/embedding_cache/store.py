"""Reading cached outputs, in as many processes as there are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.embedding_cache.fingerprint import Fingerprint
from atr_moco_plugin.embedding_cache.index import Index, missing_shards, shard_path
from atr_moco_plugin.embedding_cache.outputs import Output, Stage
from atr_moco_plugin.embedding_cache.shards import Shard
from atr_moco_plugin.errors import ChangedError, InputError
from atr_moco_plugin.ids import stable_digest


class OutputStore:
    """The outputs of a folder by the names of its items.

    Shards are mapped into memory when they are first read, so that several processes share them.
    The names are kept as digests in two arrays: a million of them take 16 MB, which forked workers
    share too.

    Args:
        folder: of the shards, all written.
        index: its index.
        names: of the items in their order: the keys of clips, or the texts of captions.
        needed: what is read of each output.

    Raises:
        InputError: if a shard is missing.
    """

    def __init__(self, folder: Path, index: Index, names: Iterable[str], needed: Stage) -> None:
        if missing := missing_shards(folder, index):
            raise InputError(
                f"{folder}: {len(missing)} of {index.num_shards} shards are not there, first "
                f"{shard_path(folder, missing[0]).name}: give `dataset.cache_embeddings` a folder "
                "that all processes share"
            )
        self.folder, self.index, self.needed = folder, index, needed
        digests = np.array([_digest(name) for name in names], np.int64)
        if len(digests) != index.items:
            raise InputError(
                f"{folder}: has {index.items} items, not {len(digests)}: remove the folder"
            )
        self._order = np.argsort(digests, kind="stable")
        self._digests = digests[self._order]
        self._shards: dict[int, Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}  # mapped anew in a process that is spawned

    @property
    def made_with(self) -> Fingerprint:
        """What decided about the outputs."""
        return self.index.made_of

    def get(self, name: str, crop: int = 0) -> Output:
        """The output of an item.

        Args:
            name: of the item.
            crop: which of its crops.

        Raises:
            InputError: if the item could not be used when the cache was written, with the reason.
            ChangedError: if another run has written the cache anew since it was opened.
            KeyError: if there is no such item.
        """
        number, place = self._place(name)
        return self._shard(number).get(place, crop, self.needed)

    def lengths(self) -> NDArray[np.int64]:
        """``[items]``, tokens of each item's first crop, which others of it do not exceed; 0 of an
        item that could not be used."""
        shards = (self._shard(number).lengths() for number in range(self.index.num_shards))
        return np.concatenate([np.zeros(0, np.int64), *shards])

    def bad(self) -> dict[int, str]:
        """Number and reason of every item that could not be used, in the order of the items."""
        return {
            shard * self.index.items_a_shard + place: reason
            for shard in range(self.index.num_shards)
            for place, reason in self._shard(shard).bad.items()
        }

    def _place(self, name: str) -> tuple[int, int]:
        digest = _digest(name)
        at = int(np.searchsorted(self._digests, digest))
        if at == len(self._digests) or self._digests[at] != digest:
            raise KeyError(f"{self.folder} has no output of {name!r}")
        return divmod(int(self._order[at]), self.index.items_a_shard)

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            shard = Shard(path := shard_path(self.folder, number))
            if shard.made_of != self.index.digest:
                raise ChangedError(
                    f"{path} is of another run, which has written {self.folder} anew while this "
                    "one reads it: give each a `dataset.cache_embeddings` of its own"
                )
            self._shards[number] = shard
        return self._shards[number]


def _digest(name: str) -> int:
    return stable_digest("cached item", name)
