"""Retrieval figures and rank measures as tables."""

from __future__ import annotations

import json

import pytest
import torch

from atr_moco_plugin.evaluation import (
    chance_metrics,
    rank_table,
    retrieval_metrics,
    retrieval_table,
    split_report,
)
from atr_moco_plugin.evaluation.relevance import CaptionRelevance
from atr_moco_plugin.rank import RankLogger


def figures(r1: float, **more: float) -> dict[str, float]:
    return {"a2t_r1": r1, "t2a_medr": 1234.5, "r_sum": 6 * r1, **more}


def test_rows_columns_and_order() -> None:
    result = {
        "chance": figures(1), "reranked": figures(9.04), "clips": 1_045, "captions": 5_225,
        "dual": figures(8, r_sum_dup=60.0, a2t_r1_dup=10.0), "rerank_k": 4,
    }  # fmt: skip
    table = retrieval_table(result, "test")
    assert table.caption == "test: 1,045 clips, 5,225 captions"
    assert [row[0] for row in table.rows] == [
        "dual encoder", "dual encoder (dup)", "re-ranked", "chance",
    ]  # fmt: skip
    assert {len(row) for row in table.rows} == {len(table.header)} == {12}
    assert sum(span for _, span in table.groups) == 12
    cells = [dict(zip(table.header[1:6], row[1:6], strict=True))["R@1"] for row in table.rows]
    assert cells == ["8.0", "10.0", "9.0", "1.0"]
    # Not measured is not zero.
    assert table.rows[0][2] == "–" and table.rows[0][9] == "1,234.5"
    assert [row[-1] for row in table.rows] == ["48.0", "60.0", "54.2", "6.0"]


def test_several_numbers_of_candidates_have_their_rows() -> None:
    by_k = {"8": {"reranked": figures(2)}, "16": {"reranked": figures(3)}}
    result = {"dual": figures(1), "rerank": by_k, "reranked": figures(3), "chance": figures(0)}
    names = [row[0] for row in retrieval_table(result, "test").rows]
    assert names == ["dual encoder", "re-ranked, best 8", "re-ranked, best 16", "chance"]
    del by_k["8"]
    names = [row[0] for row in retrieval_table(result, "test").rows]
    assert names == ["dual encoder", "re-ranked", "chance"]


def with_intervals(level: float = 0.95, clusters: object = 1_045) -> dict[str, object]:
    ends = {"a2t_r1": [7.04, 9.0], "t2a_medr": [1200.0, 1300.0], "r_sum": [40.0, 60.0]}
    of_k = {k: {"reranked": {"a2t_r1": [float(k), 9.9]}} for k in ("8", "16")}
    head = {"level": level, "replicates": 1_000, "seed": 0, "clusters": clusters}
    return {
        "dual": figures(8, r_sum_dup=60.0), "chance": figures(1), "reranked": figures(3),
        "rerank": {k: {"reranked": figures(3)} for k in of_k}, "clips": 1_045, "captions": 5_225,
        "intervals": {**head, "dual": ends, "rerank": of_k, **of_k["16"]},
    }  # fmt: skip


def test_intervals_stand_below_their_figures() -> None:
    table = retrieval_table(with_intervals(), "test")
    assert [row[0] for row in table.rows] == [
        "dual encoder", "  95 % from", "  95 % to", "dual encoder (dup)",
        "re-ranked, best 8", "  95 % from", "  95 % to",
        "re-ranked, best 16", "  95 % from", "  95 % to", "chance",
    ]  # fmt: skip
    low, high = table.rows[1], table.rows[2]
    assert (low[1], high[1], low[2], high[2]) == ("7.0", "9.0", "–", "–")
    assert (low[9], high[9], low[-1], high[-1]) == ("1,200.0", "1,300.0", "40.0", "60.0")
    assert [table.rows[i][1] for i in (5, 8)] == ["8.0", "16.0"]
    assert table.notes == [
        "95 % intervals: Wilson's with Student's t, errors of a bootstrap over 1,045 clips with "
        "their captions (MedR: quantiles)"
    ]
    wide = retrieval_table(with_intervals(0.9, {"a2t": 80, "t2a": 5}), "test", ranges=True)
    assert wide.rows[1][:3] == ["  90 %", "7.0–9.0", "–"] and len(wide.rows) == 8
    assert wide.rows[1][9] == "1,200.0–1,300.0"
    assert wide.notes == [
        "90 % intervals: Wilson's with Student's t, errors of a bootstrap over 80 clips and 5 sets "
        "of texts with the same clips (MedR: quantiles)"
    ]


def test_a_terminal_has_the_intervals_of_each_k() -> None:
    measures = {"sources": {}, "pairs": {}}
    text = split_report({**with_intervals(), "test_set": "toy test", "rank": measures})
    eight, sixteen = text.split("The best ")[1:]
    assert eight.startswith("8 ") and " 8.0  " in eight and " 16.0  " not in eight
    assert sixteen.startswith("16 ") and " 16.0  " in sixteen


@pytest.mark.parametrize(
    "broken", [None, [], "x", {"dual": [1, 2]}, {"dual": {"a2t_r1": [1]}}, {"clusters": "x"}]
)
def test_intervals_that_are_not_there_or_broken_leave_the_figures(broken: object) -> None:
    whole = retrieval_table({"dual": figures(8), "chance": figures(1)})
    table = retrieval_table({"dual": figures(8), "chance": figures(1), "intervals": broken})
    assert [row for row in table.rows if "%" not in row[0]] == whole.rows
    cells = [cell for row in table.rows if "%" in row[0] for cell in row[1:]]
    assert set(cells) <= {"–"}
    table.text()


def test_rank_stands_beside_random_vectors() -> None:
    measures = {"rankme": 3.0, "count": 4, "alpha_req": None, "random": {"rankme": 5.0}}
    record = {"sources": {"audio": {"rows": 1_200, "raw": measures}}}
    table = rank_table(record, "test")
    none = "– / –"
    assert table.rows[0] == ["audio, raw", "1,200", "3.0 / 5.0", none, none, "4.0 / –", none]
    assert table.rows[1][0] == "audio, centred"


def _retrieval() -> tuple[dict[str, float], dict[str, float]]:
    owner = torch.arange(600) // 2
    similarity = torch.rand(300, 600, generator=torch.Generator().manual_seed(0))
    metrics = retrieval_metrics(similarity, owner, caption_ids=torch.arange(600) // 3)
    return metrics, chance_metrics(CaptionRelevance(owner, 300))


def test_retrieval_table_fits_a_terminal_and_shows_each_figure_under_its_direction() -> None:
    metrics, chance = _retrieval()
    result = {"dual": metrics, "reranked_albef": metrics, "chance": chance}
    lines = retrieval_table(result).text().splitlines()
    assert max(map(len, lines)) <= 106
    assert [line.split("  ")[0] for line in lines[3:]] == [
        "dual encoder",
        "dual encoder (dup)",
        "re-ranked as ALBEF",
        "re-ranked as ALBEF (dup)",
        "chance",
    ]
    cells = lines[-1].split()[1:]
    keys = ("r1", "r5", "r10", "medr", "map10")
    expected = [chance[f"{way}_{key}"] for way in ("a2t", "t2a") for key in keys]
    assert cells == [f"{value:.1f}" for value in [*expected, chance["r_sum"]]]
    assert lines[0].index("audio -> text") == lines[1].index("R@1")
    assert lines[0].index("text -> audio") == lines[1].rindex("R@1 ")


@pytest.mark.parametrize("broken", [3, "x", [1], {"8": 3, "16": None}, {"8": {}}])
def test_broken_parts_are_left_out(broken: object) -> None:
    result = {"dual": {"t2a_r1": 41.1}, "rerank": broken, "intervals": broken}
    assert "41.1" in retrieval_table(result).text()


def test_missing_figures_are_dashes() -> None:
    table = retrieval_table({"chance": {"t2a_r1": 41.1}}).text()
    assert table.splitlines()[-1].split() == ["chance", *"-----", "41.1", *"-----"]


def test_rank_table_reads_a_line_of_the_file() -> None:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    record = RankLogger({"audio": x, "text": x.flip(0)}).log(0)
    table = rank_table(json.loads(json.dumps(record))).text()
    assert max(map(len, table.splitlines())) <= 100
    raw = record["sources"]["audio"]["raw"]
    assert f"{raw['rankme']:.1f} / {raw['random']['rankme']:.1f}" in table
    assert "text, centred" in table and "modality gap 0.000" in table
    # Of an evaluation, rows are no pairs: a dash would ask the reader what went wrong.
    record["pairs"] = {"audio_text": {"modality_gap": 0.411}}
    assert "audio_text: modality gap 0.411" in rank_table(record).notes
