"""Keys with dots and nested ones mean the same, in any order and wherever they are written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.command_line import read_stated
from atr_moco_plugin.finetuning.keys import read_config, without_nulls, written_out
from atr_moco_plugin.io.yaml12 import dump_yaml

MATCHING = {"criterion": {"name": "moco_atc", "config": {"queue_size": 64}}}
BATCHES = {"dataset": {"batch_size": 8}}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"criterion.config.queue_size": 64, "criterion": "moco_atc"}, MATCHING),
        ({"criterion": {"name": "moco_atc"}, "criterion.config": {"queue_size": 64}}, MATCHING),
        ({"dataset.batch_size": 8, "dataset": {}}, BATCHES),
        ({"dataset.batch_size": 8, "dataset": {"batch_size": 8}}, BATCHES),
        ({"dataset.max_seconds": 1, "dataset.batch_size": 8},
         {"dataset": {"batch_size": 8, "max_seconds": 1}}),
        ({"optimizer": {"config.lr": 0.1}, "optimizer.config.eps": 0.2},
         {"optimizer": {"config": {"lr": 0.1, "eps": 0.2}}}),
    ],
)  # fmt: skip
def test_no_key_is_lost(
    keys: Mapping[str, Any], expected: Mapping[str, Any], tmp_path: Path
) -> None:
    for order in permutations(keys.items()):
        assert written_out(dict(order)) == without_nulls(dict(order)) == expected
        file = tmp_path / "mine.yaml"
        file.write_text(dump_yaml(dict(order)))
        assert read_stated(file, []) == expected
        # The keys of a command line are in front of those of a file, and beside the others.
        with_seed = read_stated(file, ["common.seed=5"])
        assert with_seed == {**expected, "common": {"seed": 5}}
        read_config(dict(order))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dataset": None, "dataset.batch_size": 8}, "`dataset` is set twice, to .*None"),
        ({"dataset.batch_size": 8, "dataset": {"batch_size": 4}}, "`dataset.batch_size` is set tw"),
        ({"criterion": "atc", "criterion.name": "dcl"}, "`criterion.name` is set twice, to 'atc'"),
        ({"criterion": "atc", "criterion.name.x": 1}, "`criterion.name` is set twice"),
    ],
)
def test_two_values_of_one_key_are_refused(
    keys: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    for order in permutations(keys.items()):
        file = tmp_path / "mine.yaml"
        file.write_text(dump_yaml(dict(order)))
        with pytest.raises(InputError, match="is set twice, to .*: keep one of the two"):
            read_stated(file, [])
    with pytest.raises(InputError, match=message):
        without_nulls(keys)


def test_of_a_command_line_the_later_key_counts() -> None:
    pairs = ["dataset=null", "dataset.batch_size=8", "dataset={batch_size: 4, max_seconds: 1}"]
    assert read_stated(None, pairs) == {"dataset": {"batch_size": 4, "max_seconds": 1}}


def test_a_path_is_a_text() -> None:
    assert read_config({"init": Path("models/mine")})[0].init == "models/mine"
