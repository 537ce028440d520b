from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.analysis import analyse
from atr_moco_plugin.analysis.tables import (
    between_tables,
    retrieval_tables,
    terminal_report,
    within_tables,
)


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    audio = gaussian(300, 16)
    found = analyse(audio, audio + gaussian(300, 16, seed=1), names=("audio of eighteen!", "text"))
    read: dict[str, Any] = json.loads(json.dumps(found))
    return read


def cells(table: Any) -> dict[str, list[str]]:
    return {row[0]: list(row[1:]) for row in table.rows}


def test_figures_of_the_record_stand_in_the_tables(result: dict[str, Any]) -> None:
    rank, sides = within_tables(result)
    source = result["rank"]["sources"]["text"]["centered"]
    both = f"{source['rankme']:.1f} / {source['random']['rankme']:.1f}"
    assert cells(rank)["text, centred"][0] == both
    assert [name for name, _ in sides.groups] == ["", "audio of eighteen!", "text"]
    dimension = result["dimension"]["text"]
    assert cells(sides)["TwoNN dimension"][3:] == [
        f"{dimension['value']:.1f}", f"{dimension['random']:.1f}", "300",
    ]  # fmt: skip
    (shared,) = between_tables(result)
    gap = result["gap"]
    assert cells(shared)["modality gap"] == [
        f"{gap['value']:.3f}", f"{gap['random']:.3f}", "300 and 300 rows",
    ]  # fmt: skip
    cosine, by_axes = retrieval_tables(result)
    assert cells(cosine)["cosine"][0] == f"{result['retrieval']['cosine']['a2t_r1']:.1f}"
    assert list(cells(by_axes)) == [
        "2 axes", "4 axes", "8 axes", "16 axes", "cosine", "  95 % from", "  95 % to", "chance",
    ]  # fmt: skip
    assert by_axes.caption.endswith("150 audio of eighteen! and 150 text; axes of 150 other pairs")


def test_a_terminal_shows_all_of_it_in_a_hundred_columns(result: dict[str, Any]) -> None:
    shown = terminal_report({**result, "notes": ["Something was left out."]})
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.endswith("Note: Something was left out.") and shown.isascii()
    for table in (*within_tables(result), *between_tables(result), *retrieval_tables(result)):
        assert table.caption in shown


def test_what_was_left_out_has_no_row() -> None:
    one = analyse(gaussian(20, 4))
    assert between_tables(one) == retrieval_tables(one) == []
    assert "What both sides share" not in terminal_report(one)
    two_spaces = analyse(gaussian(20, 4), gaussian(20, 6))
    (shared,) = between_tables(two_spaces)
    assert list(cells(shared)) == [
        "linear CKA", "linear CKA, debiased", "mutual 10 neighbours", "shared axes above noise",
        "RankMe of the cross-covariance",
    ]  # fmt: skip
    (by_axes,) = retrieval_tables(two_spaces)
    assert "cosine" not in cells(by_axes)
    smallest = analyse(gaussian(2, 3), gaussian(2, 3, seed=1))
    assert cells(within_tables(smallest)[1])["TwoNN dimension"][:3] == ["–", "–", "–"]
