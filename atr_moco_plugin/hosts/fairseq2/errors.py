"""What a user reads: mistakes end in one line, and the console is not flooded."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from fairseq2.error import OperationalError
from fairseq2.recipe.error import RecipeConfigParseError, RecipeError

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.compat import ModelFileError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what this package raises for bad input into fairseq2's ``RecipeError``, which its
    command line prints as one line with exit status 2."""
    try:
        yield
    except InputError as ex:
        raise RecipeError(" ".join(str(ex).split())) from None


def system_error(error: BaseException | None) -> OSError | None:
    """The operating system's part in an error: itself or what caused it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


_TRACE = re.compile(r"^\s*Traceback \(.*\n(?:\s+.*\n)*", re.MULTILINE)

LONG = 1_000
"""Records with more characters go to the log file alone."""


class ReadableLog(logging.Filter):
    """Filter for the logger ``fairseq2``.

    Folds the trace of a configuration that cannot be parsed, or of a checkpoint that cannot be
    read, into its messages, and leaves out the record of all environment variables, which may hold
    secrets.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; False drops it."""
        if record.getMessage().startswith("Environment Variables"):
            return False
        for handler in logging.getLogger().handlers + logging.getLogger("fairseq2").handlers:
            # fairseq2 makes its console handler only when a recipe runs.
            if not isinstance(handler, logging.FileHandler) and not handler.filters:
                handler.addFilter(_is_short)
        error = record.exc_info[1] if record.exc_info else None
        failed = system_error(error) if isinstance(error, OperationalError) else None
        if failed is not None:
            record.msg, record.args = f"{failed.strerror}: {failed.filename}", ()
            record.exc_info = record.exc_text = None
        if isinstance(error, Exception) and _of_configuration(error):
            record.msg = f"The recipe's configuration cannot be read: {_folded(error)}"
            record.args = ()
            record.exc_info = record.exc_text = None
        if isinstance(error, (RecipeConfigParseError, ModelFileError)):
            start = f"{error.path}: " if isinstance(error, ModelFileError) else ""
            record.msg, record.args = start + _folded(error), ()
            record.exc_info = record.exc_text = None
        return True


def _of_configuration(error: Exception) -> bool:
    """Whether fairseq2 fell over a configuration: ``.inf`` for a whole number, Latin-1."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(x.name == "load" and x.filename.endswith("cli.py") for x in frames)


def _folded(error: BaseException | None) -> str:
    """The messages of an error and of what caused it, in one line."""
    messages: list[str] = []
    while error is not None:
        # fairseq2 puts whole traces into some of its messages.
        messages.append(" ".join(_TRACE.sub("", str(error)).split()))
        error = error.__cause__
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(messages))
    # Half of a surrogate pair, as a key may have it, cannot be written.
    return message.encode("utf-8", "backslashreplace").decode()


def _is_short(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or len(record.getMessage()) <= LONG
