"""Lines on standard output."""

from __future__ import annotations

import os
import sys


def say(text: str = "") -> None:
    """Print a line at once, also into a pipe. Where its reader is gone, as ``| head`` is after ten
    lines, nothing more is printed and the command goes on to its end and its usual exit status."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What Python still holds would fail again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
