"""Lines on standard output."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str = "") -> None:
    """Print a line without delay, also into a pipe.

    If the reader of the pipe has ended, as ``head`` does after ten lines, nothing more is printed,
    and the command still runs to its end and its usual exit status.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What Python still holds would fail again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 45 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def printable(name: str) -> str:
    """Text on one line, without what a terminal cannot show: a file may have any name."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextmanager
def warnings_in_short() -> Iterator[None]:
    """Warnings as a sentence on standard error, without the line of code that gave them."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"NOTE: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
