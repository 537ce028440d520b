"""What commands say on standard error."""

from __future__ import annotations

import pytest

from atr_moco_plugin.commands.options import report_broken


@pytest.mark.parametrize(("number", "named", "left"), [(1, 1, 0), (3, 3, 0), (4, 4, 0), (5, 3, 2)])
def test_all_broken_sounds_are_named_where_one_would_be_left(
    number: int, named: int, left: int, capsys: pytest.CaptureFixture[str]
) -> None:
    report_broken([(f"{n}.wav", "empty") for n in range(number)])
    head, *lines = capsys.readouterr().err.splitlines()
    assert head == f"{number} cannot be read:"
    assert lines[:named] == [f"  {n}.wav: empty" for n in range(named)]
    assert lines[named:] == [f"  ... and {left} more (--json names all)"] * (left > 0)
