"""Reading what a run left, whole or not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atr_moco_plugin.report.run_folder import (
    ReportError,
    parse_config,
    parse_lines,
    read_run,
    series,
)


def test_a_cut_off_line_and_lines_that_are_no_records_are_left_out() -> None:
    text = '{"Step": 1, "Loss": 2}\n[3]\n\n{"Step": null}\n'
    text += '{"Step": 2, "Loss": NaN}\n{"Step": 3, "Lo'
    assert [record["Step"] for record in parse_lines(text, "Step")] == [1, 2]


def test_of_a_step_reached_twice_the_later_record_counts() -> None:
    steps = [(1, "a"), (2, "a"), (3, "a"), (2, "b"), (4, "b")]
    text = "\n".join(json.dumps({"Step": step, "from": name}) for step, name in steps)
    records = parse_lines(text, "Step")
    assert [(record["Step"], record["from"]) for record in records] == [
        (1, "a"), (2, "b"), (3, "a"), (4, "b"),
    ]  # fmt: skip


def test_a_series_has_the_finite_numbers_alone() -> None:
    records = [
        {"Step": 1, "a": {"b": 1}}, {"Step": 2}, {"Step": 3, "a": {"b": None}},
        {"Step": 4, "a": {"b": float("nan")}}, {"Step": 5, "a": {"b": 2.5}}, {"Step": 6, "a": 7},
        {"Step": 7, "a": {"b": True}}, {"Step": 8, "a": {"b": "9"}},
    ]  # fmt: skip
    steps, values = series(records, "Step", "a", "b")
    assert steps.tolist() == [1, 5] and values.tolist() == [1, 2.5]
    assert len(series([], "Step", "a")[0]) == 0


def test_a_long_series_is_thinned_and_keeps_its_ends_and_spikes() -> None:
    values = np.sin(np.arange(100_000) / 5_000)
    values[71_234], values[12_345] = 50, -50
    records = [{"Step": i, "x": float(v)} for i, v in enumerate(values)]
    steps, thinned = series(records, "Step", "x")
    assert len(steps) <= 1_002 and np.all(np.diff(steps) > 0)
    assert (steps[0], steps[-1]) == (0, 99_999)
    assert (thinned.max(), thinned.min()) == (50, -50)
    assert steps[thinned.argmax()] == 71_234


def test_config_becomes_dotted_keys_with_the_values_as_written() -> None:
    text = "a:\n  mode: off\n  rate: 1e-08\n  none: null\n  empty: {}\nbetas: [0.9, 0.98]\n"
    text += "groups:\n- params: [x]\n  lr: 3e-05\n- lr: default\n"
    assert parse_config(text) == {
        "a.mode": "off", "a.rate": "1e-08", "a.none": "null", "a.empty": "{}",
        "betas": "[0.9, 0.98]", "groups[0].params": "[x]", "groups[0].lr": "3e-05",
        "groups[1].lr": "default",
    }  # fmt: skip


def test_nothing_secret_comes_out_of_a_config() -> None:
    keys = ("token", "hf_token", "api_key", "apikey", "password", "client_secret", "aws_access_key")
    text = "part:\n" + "".join(f"  {key}: PRECIOUS\n" for key in keys)
    text += "  passwords: [1]\n  credentials: [PRECIOUS, b]\n"
    text += "  url: https://me:PRECIOUS@host/file?sig=PRECIOUS\n"
    config = parse_config(text + "tokenizer:\n  max_tokens: 32\n  token: null\n")
    assert "PRECIOUS" not in str(config)
    assert config["part.hf_token"] == "(hidden)"
    assert config["part.url"] == "https://host/file?(hidden)"
    assert config["tokenizer.max_tokens"] == "32" and config["tokenizer.token"] == "null"


def test_yaml_is_not_executed() -> None:
    assert parse_config("a: !!python/object/apply:os.getcwd []") == {"a": "[]"}


def test_broken_files_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "retrieval.json").write_text('{"criterion": "mo')
    (tmp_path / "config.yaml").write_text("- a list\n")
    (tmp_path / "rank.jsonl").write_text('{"step": 3}\n')
    run = read_run(tmp_path)
    assert set(run.problems) == {"retrieval.json", "config.yaml"}
    assert "retrieval.json is not readable" in run.problems["retrieval.json"]
    assert run.rank == [{"step": 3}] and run.retrieval == {} and run.config == {}


@pytest.mark.parametrize("folder", ["", "missing"])
def test_another_folder_is_refused_in_one_sentence(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ReportError, match="give the output folder of a run"):
        read_run(tmp_path / folder)
