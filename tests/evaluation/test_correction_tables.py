from __future__ import annotations

from typing import Any

import pytest

from atr_moco_plugin.evaluation.correction_tables import (
    correction_tables,
    hubness_report,
    hubness_table,
)

HUBS = {"skewness": 1.234, "never": 8.5, "largest": 10.0, "largest_item": 3, "mean": 2.0}
FIGURES = {
    f"{way}_{name}": 50.0 for way in ("a2t", "t2a") for name in ("r1", "r5", "r10", "medr", "map10")
} | {"r_sum": 300.0}
CHOSEN = {"k": 16, "alpha": 0.75, "valid_map10": 59.6, "valid_map10_plain": 55.7}
ENDS = {name: [40.0, 60.0] for name in FIGURES}
GAINS = {"a2t_r1": [-1.0, -6.04, 4.0], "t2a_r1": [2.0, 0.5, 3.5]}
WAYS = {"a2t": CHOSEN, "t2a": CHOSEN}


@pytest.fixture
def result() -> dict[str, Any]:
    named = {**HUBS, "largest_name": "a dog barks"}
    return {
        "dual": FIGURES,
        "intervals": {"level": 0.95, "dual": ENDS},
        "hubness": {"k": 10, "a2t": named, "t2a": named},
        "corrections": {
            "chosen_on": {"split": "valid", "clips": 200},
            "bank": {"split": "train", "clips": 1500, "captions": 7152},
            "chosen_by": "map10",
            "chosen": {"nnn": WAYS, "sinkhorn": WAYS},
            "intervals": {"nnn": ENDS, "sinkhorn": ENDS},
            "gains": {"nnn": GAINS, "sinkhorn": GAINS},
            "inductive": {"nnn": FIGURES},
            "transductive": {"sinkhorn": FIGURES},
            "hubness": {"nnn": {"a2t": HUBS, "t2a": HUBS}, "sinkhorn": {"a2t": HUBS, "t2a": HUBS}},
        },
    }


def test_transductive_corrections_stand_beside_nothing_else(result: dict[str, Any]) -> None:
    for table in [hubness_table(result), *correction_tables(result)]:
        assert table is not None
        names = [row[0] for row in table.rows]
        if "Sinkhorn" in names:
            assert not {"dual encoder", "NNN"} & set(names)
            assert "transductive" in table.caption
        else:
            assert "transductive" not in table.caption


def test_tables_say_where_they_come_from(result: dict[str, Any]) -> None:
    inductive, gains, *_ = correction_tables(result, "test")
    assert inductive.caption == (
        "test: corrected by a bank of 1,500 clips and 7,152 captions of train"
    )
    assert "Parameters are chosen by mAP10 on valid (200 clips):" in inductive.notes
    assert any(
        note.startswith("NNN: audio → text k 16, alpha 0.75 (55.7 to 59.6); text")
        for note in inductive.notes
    )
    assert [row[0] for row in inductive.rows] == [
        name for system in ("dual encoder", "NNN") for name in (system, "  95 % from", "  95 % to")
    ]
    assert gains.notes == [
        "In percentage points, with 95 % intervals: Student's t, with the standard error of a "
        "bootstrap over clips that draws both alike"
    ]
    assert gains.rows == [["NNN", "-1.0 (-6.0 to +4.0)", "–", "+2.0 (+0.5 to +3.5)", "–"]]


def test_hubness_names_the_largest_hub(result: dict[str, Any]) -> None:
    table = hubness_table(result, "test")
    assert table is not None
    assert table.rows[0] == ["dual encoder", *["1.23", "8.5", "10.0", "2.0"] * 2]
    assert table.rows[1][0] == "NNN"
    assert "audio → text: found most often, by 10 queries, is “a dog barks”" in table.notes


def test_an_item_that_is_found_as_often_as_others_is_no_hub(result: dict[str, Any]) -> None:
    """Of ten items each query has all among its ten best."""
    even = {**HUBS, "largest_name": "a dog barks", "skewness": 0.0, "largest": 13.0, "mean": 13.0}
    for largest, named in ((13.0, False), (25.9, False), (26.0, True)):
        result["hubness"]["a2t"] = {**even, "largest": largest}
        table = hubness_table(result, "test")
        assert table is not None
        assert any(note.startswith("audio → text: found") for note in table.notes) is named


def test_one_query_is_no_plural(result: dict[str, Any]) -> None:
    result["hubness"]["a2t"] |= {"largest": 1.0, "mean": 0.2}
    table = hubness_table(result)
    assert table is not None and "often, by 1 query, is" in table.notes[1]


def test_columns_of_hubness_have_their_units(result: dict[str, Any]) -> None:
    tables = [hubness_table(result), list(correction_tables(result))[-1]]
    for table in tables:
        assert table is not None and table.header[1:5] == ["skew", "never, %", "largest", "mean"]
        assert "Largest and mean are numbers of queries." in table.notes


def test_in_a_terminal_it_is_at_most_100_columns_wide(result: dict[str, Any]) -> None:
    report = hubness_report(result)
    of_tables = [line for line in report.splitlines() if "  " in line]
    assert max(map(len, of_tables)) <= 100
    assert report.index("NNN") < report.index("transductive") < report.index("Sinkhorn")


@pytest.mark.parametrize("broken", [{}, {"hubness": None}, {"hubness": {}, "corrections": 3}])
def test_what_an_older_run_lacks_is_left_out(broken: dict[str, Any]) -> None:
    assert list(correction_tables(broken)) == []
    hubness_report(broken)


@pytest.mark.parametrize(
    "missing", ["bank", "chosen", "chosen_on", "chosen_by", "hubness", "gains", "intervals"]
)
def test_a_part_that_is_missing_becomes_dashes(result: dict[str, Any], missing: str) -> None:
    del result["corrections"][missing]
    assert len(hubness_report(result).split("\n\n")) > 3


@pytest.mark.parametrize("broken", [None, "x", [], {}])
def test_a_broken_parameter_is_no_traceback(result: dict[str, Any], broken: object) -> None:
    chosen = result["corrections"]["chosen"]
    result["corrections"]["chosen"] = {name: {"a2t": {"k": broken}} for name in chosen}
    assert "k nan" in hubness_report(result)
