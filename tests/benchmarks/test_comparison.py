"""The benchmark of false positives runs, and equal models are seldom called different."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import comparison


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    comparison.main(["--trials=20", "--cases=0"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 50 x 5")]
    (cells,) = ([cell.strip() for cell in line.strip("|").split("|")] for line in rows)
    assert len(cells) == len(comparison.FIGURES) + 4
    for cell in cells[2:-2]:
        assert all(0 <= float(share) <= 25 for share in cell.split(" / "))


def test_sides_are_drawn_from_one_law() -> None:
    """Every case has its runs, its queries and a recall between 5 and 95 %."""
    for case in comparison.CASES:
        measures, sides = comparison.draw_sides(case, np.random.default_rng(0))
        assert tuple(map(len, sides)) == case.runs
        assert len(measures.cluster["t2a"]) == case.clips * case.captions
        recall = float((sides[0][0]["t2a"].rank <= 1).mean())
        assert 0.05 < recall < 0.95
