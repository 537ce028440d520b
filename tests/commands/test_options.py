"""What commands say on standard error."""

from __future__ import annotations

import os

import pytest

from atr_moco_plugin.commands.main import build_parser, main
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


@pytest.mark.parametrize("command", ["index", "embed", "classify"])
@pytest.mark.parametrize("value", ["*.m4a", "m4a,aac", "", ".", " .m4a", "tar.gz", "..m4a"])
def test_a_suffix_that_no_file_has_is_refused(
    command: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args([command, "sounds", "--suffix", value])
    said = f"--suffix: {value!r} is no suffix: write --suffix m4a, once for each"
    assert said in capsys.readouterr().err


def test_a_suffix_is_a_word_with_or_without_its_dot() -> None:
    options = build_parser().parse_args(
        ["index", "sounds", "--index", "x", "--model", "m", "--suffix", ".M4A", "--suffix", "sph"]
    )
    assert options.suffix == [".M4A", "sph"]


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


def test_a_file_that_the_system_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: object) -> int:
        raise PermissionError(13, "Permission denied", "/data/list.txt")

    monkeypatch.setattr("atr_moco_plugin.commands.plugins.run", run)
    assert main(["plugins"]) == 2
    said = "ERROR: /data/list.txt: Permission denied: allow this user to read and write it."
    assert capsys.readouterr().err.startswith(said)
    monkeypatch.setattr("atr_moco_plugin.commands.plugins.run", lambda options: os.read(-1, 1))
    with pytest.raises(OSError, match="Bad file descriptor"):  # a bug keeps its traceback
        main(["plugins"])
