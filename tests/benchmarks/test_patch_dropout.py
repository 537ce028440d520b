"""The experiment on patch dropout, in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY_TOY_RECIPE

from benchmarks import patch_dropout


@pytest.mark.slow
def test_the_table_of_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [x for x in TINY_TOY_RECIPE if not x.startswith(("report", "regime", "criterion"))]
    options.append("regime.keep_best_n_checkpoints=null")
    rows = ["--rows", str(tmp_path / "rows.jsonl")]
    few = [str(tmp_path), *rows, "--seeds", "0", "--steps", "1", "--rounds", "1"]
    patch_dropout.main([*few, "--options", *options])
    printed = capsys.readouterr().out
    for way in patch_dropout.WAYS:
        assert f"{way} |" in printed
    # What is there is not run again, and the table alone says the same.
    patch_dropout.main([str(tmp_path), *rows, "--table"])
    assert capsys.readouterr().out == printed
