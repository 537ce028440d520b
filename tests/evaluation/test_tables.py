from __future__ import annotations

import json

import pytest
import torch

from atr_moco_plugin.evaluation import (
    chance_metrics,
    format_table,
    rank_table,
    retrieval_metrics,
    retrieval_table,
)
from atr_moco_plugin.evaluation.relevance import CaptionRelevance
from atr_moco_plugin.rank import RankLogger


def test_columns_align() -> None:
    table = format_table(["name", "x"], [["a", "1.0"], ["longer", "100.0"]])
    assert table.splitlines() == [
        "name        x",
        "------  -----",
        "a         1.0",
        "longer  100.0",
    ]


def test_markdown() -> None:
    table = format_table(["name", "x"], [["a", "1.0"]], markdown=True)
    assert table.splitlines() == ["| name |   x |", "| ---- | --: |", "| a    | 1.0 |"]


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 cells, the header 2"):
        format_table(["a", "b"], [["1", "2", "3"]])


def _retrieval() -> tuple[dict[str, float], dict[str, float]]:
    owner = torch.arange(600) // 2
    similarity = torch.rand(300, 600, generator=torch.Generator().manual_seed(0))
    metrics = retrieval_metrics(similarity, owner, caption_ids=torch.arange(600) // 3)
    return metrics, chance_metrics(CaptionRelevance(owner, 300))


def test_retrieval_table_fits_a_terminal_and_shows_each_figure_under_its_direction() -> None:
    metrics, chance = _retrieval()
    lines = retrieval_table({"re-ranked k=128": metrics}, chance=chance).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split("  ")[0] for line in lines[3:]] == [
        "re-ranked k=128",
        "re-ranked k=128 (dup)",
        "chance",
    ]
    cells = lines[-1].split()[1:]
    keys = ("r1", "r5", "r10", "medr", "map10")
    expected = [chance[f"{way}_{key}"] for way in ("a2t", "t2a") for key in keys]
    assert cells == [f"{value:.1f}" for value in [*expected, chance["r_sum"]]]
    assert lines[0].index("audio -> text") == lines[1].index("R@1")
    assert lines[0].index("text -> audio") == lines[1].rindex("R@1 ")


def test_retrieval_table_in_markdown_names_the_direction_in_each_title() -> None:
    metrics, _ = _retrieval()
    lines = retrieval_table({"ours": metrics}, markdown=True).splitlines()
    assert "R@1 a2t" in lines[0] and "R@1 t2a" in lines[0]
    assert len({line.count("|") for line in lines}) == 1


def test_missing_figures_are_dashes() -> None:
    table = retrieval_table({"ours": {"t2a_r1": 41.1}})
    assert table.splitlines()[-1].split() == ["ours", *"-----", "41.1", *"-----"]


@pytest.mark.parametrize("markdown", [False, True])
def test_rank_table_reads_a_line_of_the_file(markdown: bool) -> None:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    record = RankLogger({"audio": x, "text": x.flip(0)}).log(0)
    table = rank_table(json.loads(json.dumps(record)), markdown=markdown)
    assert max(map(len, table.splitlines())) <= 100
    raw = record["sources"]["audio"]["raw"]
    assert f"{raw['rankme']:.1f} / {raw['random']['rankme']:.1f}" in table
    assert "text centered" in table and "modality gap 0.000" in table
