"""Options that are given once."""

from __future__ import annotations

import pytest

from atr_moco_plugin.io.arguments import OnceParser


def make_parser() -> OnceParser:
    parser = OnceParser()
    command = parser.add_subparsers(dest="command").add_parser("go")
    command.add_argument("place", nargs="?")
    command.add_argument("-k", "--number", type=int, default=10)
    command.add_argument("--many", action="append", default=[])
    command.add_argument("--flag", action="store_true")
    one = command.add_argument_group("group").add_mutually_exclusive_group()
    one.add_argument("--size", nargs="?", const=1.0, type=float)
    one.add_argument("--names", nargs="+")
    return parser


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["-k", "1", "--number", "2"], "-k/--number"),
        (["--num", "1", "-k1"], "-k/--number"),
        (["-k", "10", "-k", "10"], "-k/--number"),
        (["--size", "--size=2"], "--size"),
        (["--names", "a", "b", "--names", "c"], "--names"),
    ],
)
def test_a_second_value_is_refused(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(["go", *arguments])
    assert f"argument {option}: is given twice: give it once" in capsys.readouterr().err


def test_what_may_be_repeated_is_and_a_parser_parses_again() -> None:
    parser = make_parser()
    for number in (1, 2):
        given = ["go", "here", "-k", str(number), "--many", "a", "--many", "b", "--flag", "--flag"]
        options = parser.parse_args(given)
        assert (options.place, options.number, options.many) == ("here", number, ["a", "b"])
    assert parser.parse_args(["go"]).number == 10
