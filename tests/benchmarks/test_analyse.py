"""The benchmark of the analysis, in miniature."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import analyse


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is Linux's")
def test_a_table_with_a_row_for_each_number_of_rows(capsys: pytest.CaptureFixture[str]) -> None:
    analyse.main(["--rows", "300", "600", "--dim", "16", "--threads", "1"])
    printed = capsys.readouterr().out
    assert re.findall(r"^\| (\d+ x 16) ", printed, re.M) == ["300 x 16", "600 x 16"]
    assert "600 x 16 in at most 60 s: met" in printed
