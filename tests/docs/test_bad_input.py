"""The page on bad input: every test it names is there, and every row of its table names one."""

from __future__ import annotations

import ast
import re

from docs.pages import ROOT, read

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """The cells of the first table, without its head and the headings within."""
    lines = read("docs/bad_input.md").partition("| what |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines]
    return [row for row in cells if not row[0].startswith("**")]


def test_every_row_names_tests_that_are_there() -> None:
    functions: dict[str, set[str]] = {}
    assert len(rows()) > 70
    for row in rows():
        assert len(row) == 3 and all(row), row
        named = NAMED.findall(row[2])
        assert named and not NAMED.sub("", row[2]).strip(), row
        for file, name in named:
            if file not in functions:
                tree = ast.parse((ROOT / file).read_text())
                functions[file] = {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}
            assert name in functions[file], f"{file} has no {name}"


def test_no_row_is_there_twice() -> None:
    kinds = [row[0] for row in rows()]
    assert len(set(kinds)) == len(kinds)
