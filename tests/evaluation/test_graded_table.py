"""The table of graded figures."""

from __future__ import annotations

from atr_moco_plugin.evaluation.graded_table import graded_table


def test_a_row_for_each_system() -> None:
    figures = {"t2a_map_cut_10": 31.0, "t2a_map_cut_16": 32.82, "t2a_ndcg_cut_10": 40.0}
    graded = {
        "qrels": "judged.csv",
        "queries": 1200,
        "skipped": 3,
        "relevant": 2.75,
        "systems": {"dual": {**figures, "t2a_success_5": 55.5, "t2a_Rprec": 20.0}, "other": {}},
        "intervals": {"level": 0.95, "systems": {"dual": {"t2a_map_cut_16": [30.01, 35.04]}}},
    }
    table = graded_table(graded)
    assert table.caption == (
        "Relevance of judged.csv: 1,200 queries with 2.8 relevant clips on average; "
        "3 without one are left out"
    )
    assert [line.split() for line in table.text().splitlines()[2:]] == [
        ["dual", "31.0", "32.8", "40.0", "55.5", "20.0"],
        ["95", "%", "-", "30.0-35.0", "-", "-", "-"],
        ["other", *("-" * 5)],
    ]


def test_what_an_older_file_lacks_is_a_dash() -> None:
    table = graded_table({})
    assert table.rows == []
    assert table.caption == "Relevance of a file: – queries with – relevant clips on average"
