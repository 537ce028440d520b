from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.embedding_cache.outputs import Output, Stage, check_finite, to_float16
from atr_moco_plugin.embedding_cache.shards import Shard, ShardContent, write_shard
from atr_moco_plugin.errors import InputError

BOTH = Stage(pooled=True, tokens=True)
WIDTH = 4


def output(seed: int, tokens: int) -> Output:
    generator = np.random.default_rng(seed)
    return Output(
        generator.normal(size=WIDTH).astype(np.float32),
        generator.normal(size=(tokens, WIDTH)).astype(np.float16),
    )


@given(
    tokens=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    crops=st.integers(1, 3),
    data=st.data(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[int], crops: int, data: st.DataObject
) -> None:
    outputs = [output(seed, count) for seed, count in enumerate(tokens)]
    row = st.lists(st.integers(0, len(outputs) - 1), min_size=crops, max_size=crops)
    rows = data.draw(st.lists(row | st.just([]), min_size=1, max_size=6))
    bad = {item: f"clip {item} is broken" for item, own in enumerate(rows) if not own}
    path = tmp_path_factory.mktemp("shards") / "0.safetensors"
    write_shard(path, ShardContent(outputs, rows, bad, {0: [1, 2, "x"]}), BOTH, crops, "digest")
    shard = Shard(path)
    assert len(shard) == len(rows) and shard.made_of == "digest" and shard.files == {0: [1, 2, "x"]}
    for item, own in enumerate(rows):
        if not own:
            with pytest.raises(InputError, match=f"clip {item} is broken"):
                shard.get(item, 0, BOTH)
        for crop, number in enumerate(own):
            found = shard.get(item, crop, BOTH)
            np.testing.assert_array_equal(found.pooled, outputs[number].pooled)
            np.testing.assert_array_equal(found.states, outputs[number].states)


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0.safetensors"
    write_shard(path, ShardContent([output(0, 3)], [[0]]), BOTH, 1, "x")
    assert Shard(path).get(0, 0, Stage(pooled=True, tokens=False)).states is None
    assert Shard(path).get(0, 0, Stage(pooled=False, tokens=True)).pooled is None


def test_what_is_not_kept_is_not_written(tmp_path: Path) -> None:
    sizes = {}
    for stage in (BOTH, Stage(pooled=True, tokens=False), Stage(pooled=False, tokens=True)):
        path = tmp_path / f"{stage}.safetensors"
        write_shard(path, ShardContent([output(0, 500)], [[0]]), stage, 1, "x")
        sizes[str(stage)] = path.stat().st_size
    pooled, tokens, both = sorted(sizes, key=lambda name: sizes[name])
    assert (pooled, tokens) == ("pooled (float32)", "tokens (float16)")
    assert sizes[both] - sizes[pooled] >= 500 * WIDTH * 2


def test_a_shard_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0.safetensors"
    write_shard(path, ShardContent([output(0, 50)], [[0]]), BOTH, 1, "x")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="missing or damaged"):
        Shard(path)
    with pytest.raises(InputError, match=r"1\.safetensors is missing or damaged"):
        Shard(tmp_path / "1.safetensors")


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("a file where the folder was")
    with pytest.raises(InputError, match="cannot be written"):
        write_shard(tmp_path / "no" / "0.safetensors", ShardContent(), BOTH, 1, "x")
    assert [x.name for x in tmp_path.iterdir()] == ["no"]


def test_open_shards_hold_no_file(tmp_path: Path) -> None:
    """A large cache has more shards than a process may have files open."""
    for number in range(40):
        write_shard(tmp_path / f"{number}.st", ShardContent([output(0, 3)], [[0]]), BOTH, 1, "x")
    before = len(os.listdir("/proc/self/fd"))
    shards = [Shard(tmp_path / f"{number}.st") for number in range(40)]
    assert len(os.listdir("/proc/self/fd")) < before + 20 and len(shards) == 40


def test_numbers_beyond_float16_are_refused() -> None:
    with pytest.raises(InputError, match=r"clip 'a': the encoder's tokens reach 7e\+04"):
        to_float16(np.full((2, 2), 7e4, np.float32), "clip 'a'")
    with pytest.raises(InputError, match="clip 'a': .* NaN or infinite"):
        check_finite(np.array([1, np.nan], np.float32), "clip 'a'")
    assert to_float16(np.full((2, 2), 6e4, np.float32), "x").dtype == np.float16
