"""Keys with dots and nested ones mean the same, in any order and wherever they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import flattened, joined, nested
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


def test_pairs_of_a_section_and_of_its_keys_go_together_where_they_agree() -> None:
    pairs = ["dataset.batch_size=8", "dataset={batch_size: 8, max_seconds: 1}"]
    assert read_stated(None, pairs) == {"dataset": {"batch_size": 8, "max_seconds": 1}}
    with pytest.raises(InputError, match="`dataset.batch_size` is set twice, to 4 and to 8"):
        read_stated(None, ["dataset.batch_size=4", *pairs])


def test_a_path_is_a_text() -> None:
    assert read_config({"init": Path("models/mine")})[0].init == "models/mine"


@pytest.mark.parametrize(
    "section",
    ["dataset.config_overrides", "criterion.config", "hooks.rank", "model.compile_options"],
)
def test_a_mapping_that_is_the_value_of_an_option_keeps_its_keys(
    section: str, tmp_path: Path
) -> None:
    value = {"a.wav": 1, 3: {"x.y": None}}
    expected = nested({section: {"m": value}})
    place = expected
    for name in section.split("."):
        place = place[name]
    assert place == {"m": value}
    for keys in ({f"{section}.m": value}, expected):
        assert written_out(keys) == nested(flattened(keys)) == expected
        file = tmp_path / "mine.yaml"
        file.write_text(dump_yaml(keys))
        assert read_stated(file, []) == expected


def test_deep_keys_of_the_model_may_have_dots() -> None:
    key = "audio.config.architecture.hidden_size"
    expected = {"audio": {"config": {"architecture": {"hidden_size": 8}}}}
    assert written_out({"model": {"config_overrides": {key: 8}}}) == {
        "model": {"config_overrides": expected}
    }
    labels = {"architecture": {"id2label": {0: "a.b"}, "x.y": 1}}
    keys = {"model": {"config_overrides": {"text": {"config": labels}}}}
    assert written_out(keys) == keys


def test_a_key_that_is_set_once_is_not_set_twice() -> None:
    nan = {"dataset": {"max_seconds": math.nan}}
    assert math.isnan(joined({}, nan)["dataset"]["max_seconds"])
    assert math.isnan(written_out(nan)["dataset"]["max_seconds"])
    both = joined(nan, {"dataset": {"max_seconds": float("nan")}})
    assert math.isnan(both["dataset"]["max_seconds"])
    arrays = {"x": np.ones(2)}
    assert joined({}, arrays)["x"] is joined(arrays, arrays)["x"] is arrays["x"]
    with pytest.raises(InputError, match="`x` is set twice"):
        joined(arrays, {"x": np.zeros(2)})
