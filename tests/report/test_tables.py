"""Tables of a page from the figures of ``retrieval.json``."""

from __future__ import annotations

from atr_moco_plugin.report.tables import rank_table, retrieval_table


def figures(r1: float, **more: float) -> dict[str, float]:
    return {"a2t_r1": r1, "t2a_medr": 1234.5, "r_sum": 6 * r1, **more}


def test_rows_columns_and_order() -> None:
    result = {
        "chance": figures(1), "reranked": figures(9.04), "clips": 1_045, "captions": 5_225,
        "dual": figures(8, r_sum_dup=60.0, a2t_r1_dup=10.0), "rerank_k": 4,
    }  # fmt: skip
    table = retrieval_table("test", result)
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
    names = [row[0] for row in retrieval_table("test", result).rows]
    assert names == ["dual encoder", "re-ranked, best 8", "re-ranked, best 16", "chance"]
    del by_k["8"]
    names = [row[0] for row in retrieval_table("test", result).rows]
    assert names == ["dual encoder", "re-ranked", "chance"]


def test_rank_stands_beside_random_vectors() -> None:
    measures = {"rankme": 3.0, "count": 4, "alpha_req": None, "random": {"rankme": 5.0}}
    record = {"sources": {"audio": {"rows": 1_200, "raw": measures}}}
    table = rank_table("test", record)
    none = "– / –"
    assert table.rows[0] == ["audio, raw", "1,200", "3.0 / 5.0", none, none, "4.0 / –", none]
    assert table.rows[1][0] == "audio, centred"
