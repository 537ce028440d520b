"""Outputs that are read while the folder is written anew."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from atr_moco_plugin.embedding_cache.index import Index, shard_path, write_index
from atr_moco_plugin.embedding_cache.outputs import Output, Stage
from atr_moco_plugin.embedding_cache.shards import ShardContent, write_shard
from atr_moco_plugin.embedding_cache.store import OutputStore
from atr_moco_plugin.errors import ChangedError


def write(folder: Path, value: float) -> OutputStore:
    """Two items in two files, of a model with these weights."""
    index = Index({"weights": str(value)}, Stage(True, False), 2, 2, 1, 1, [0.0, 0.0])
    write_index(folder, index)
    content = ShardContent([Output(np.full(2, value, np.float32), None)], [[0]])
    for number in (0, 1):
        write_shard(shard_path(folder, number), content, index.stage, 1, index.digest)
    return OutputStore(folder, index, ["a", "b"], index.stage)


def test_a_folder_that_another_run_has_written_anew_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    first = write(folder, 1.0)
    assert first.get("a").pooled is not None
    shutil.rmtree(folder)
    second = write(folder, 9.0)
    assert np.array_equal(first.get("a").pooled, [1, 1])  # it is mapped
    for store in (first, pickle.loads(pickle.dumps(first))):
        with pytest.raises(ChangedError, match=r"000001\.safetensors is of another run, which has"):
            store.get("b")
    assert np.array_equal(second.get("b").pooled, [9, 9])
