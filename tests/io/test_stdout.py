"""Lines on standard output whose reader has gone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from atr_moco_plugin.commands.main import main
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.report.__main__ import main as report


def test_a_line_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    say()
    assert capsys.readouterr().out == "one\n\n"


@pytest.mark.parametrize(
    "command",
    [
        lambda: main(["plugins"]),
        lambda: main([]),
        lambda: report([str(Path(__file__).parent / "no_run")]) - 1,
        lambda: [say("x" * 100) for _ in range(1000)] == [],
    ],
)
def test_a_closed_pipe_ends_quietly_with_the_usual_status(command, tmp_path: Path) -> None:
    """As `... | head -3`: the reader is gone before the last line."""
    read, write = os.pipe()
    os.close(read)
    errors = tmp_path / "errors"
    child = os.fork()
    if child == 0:
        # What Python does at its end is part of it: the rest of standard output is written then.
        os.dup2(write, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        status = 99
        try:
            status = int(command())
            sys.stdout.flush()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
    assert "BrokenPipe" not in errors.read_text()
