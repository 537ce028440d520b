from __future__ import annotations

import sys

import pytest

pytest.importorskip("ruamel.yaml")

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.yaml12 import dump_yaml, load_yaml


def test_values_are_those_of_a_recipe() -> None:
    text = "{a: 1e-1, b: no, c: 12:30:00, d: 0o17, e: off, f: 1e3, g: true, h: null}"
    assert load_yaml(text) == {
        "a": 0.1, "b": "no", "c": "12:30:00", "d": 15, "e": "off", "f": 1000.0, "g": True, "h": None
    }  # fmt: skip
    assert load_yaml("a: Käuzchen".encode()) == {"a": "Käuzchen"}


def test_what_is_written_comes_back() -> None:
    tree = {"z": "1e3", "a": "0o17", "b": "no", "c": 1e-5, "d": [1, "2", None, True], "e": "Käuz"}
    tree["f"] = {"g": {}, "h": "12:30:00", "i": "a: b # c", "j": "word " * 40}
    assert load_yaml(dump_yaml(tree)) == tree and list(load_yaml(dump_yaml(tree))) == list(tree)
    assert dump_yaml({"z": 1, "a": {"b": "ä"}}) == 'z: 1\na:\n  b: "\\xE4"\n'


@pytest.mark.parametrize("text", ["a: [", "!!python/name:os.system x", "a: 2026-99-99", b"\xff"])
def test_what_is_no_yaml_is_one_sentence(text: str | bytes) -> None:
    with pytest.raises(InputError) as error:
        load_yaml(text)
    assert str(error.value) and "\n" not in str(error.value)


def test_the_package_that_reads_it_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    with pytest.raises(InputError, match=r"needs ruamel.yaml; .*atr-moco-plugin\[report\]"):
        load_yaml("a: 1")
