"""What validation scores are scores of."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.hosts.fairseq2.runs.scores import splits_in_two_roles


@pytest.mark.parametrize(
    ("splits", "named"),
    [
        (("train", "valid", "test"), []),
        (("train", "valid", None), []),
        (("train", None, None), []),
        (("train", "train", "test"), ["dataset.valid_split"]),
        (("train", "valid", "train"), ["evaluation.test_split"]),
        (("train", "valid", "valid"), ["evaluation.test_split"]),
        (
            ("a", "a", "a"),
            ["dataset.valid_split", "evaluation.test_split", "evaluation.test_split"],
        ),
    ],
)
def test_a_split_in_two_roles_is_named(splits: tuple[str, str, str], named: list[str]) -> None:
    notes = list(splits_in_two_roles(*splits))
    assert [note.split("`")[1] for note in notes] == named
