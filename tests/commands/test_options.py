"""What commands say on standard error."""

from __future__ import annotations

import pytest

from atr_moco_plugin.commands.main import build_parser
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


def test_every_option_with_a_value_is_given_once_or_says_that_it_may_be_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = build_parser()
    (commands,) = (x.choices for x in parser._actions if isinstance(x.choices, dict))
    tried = 0
    for name, command in commands.items():
        for action in command._actions:
            kind = type(action).__name__
            if not action.option_strings or kind in ("_AppendAction", "_ExtendAction"):
                continue
            if action.nargs == 0:  # a flag
                continue
            value = "1" if action.choices is None else next(iter(action.choices))
            option = max(action.option_strings, key=len)
            with pytest.raises(SystemExit, match="2"):
                parser.parse_args([name, option, value, option, value])
            assert "is given twice: give it once" in capsys.readouterr().err, (name, option)
            tried += 1
    assert tried > 40
