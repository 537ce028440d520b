"""What a user reads: mistakes end in one line, and the console is not flooded."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from fairseq2.error import OperationalError
from fairseq2.recipe.error import RecipeConfigParseError, RecipeError

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.compat import (
    ModelFileError,
    is_configuration_error,
    lists_environment,
)

LONG = 1_000
"""Records with more characters go to the log file alone."""

_TRACE = re.compile(r"^\s*Traceback \(.*\n(?:\s+.*\n)*", re.MULTILINE)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an :class:`~atr_moco_plugin.errors.InputError` into fairseq2's ``RecipeError``.

    fairseq2's command line prints that as one line and ends with exit status 2.
    """
    try:
        yield
    except InputError as ex:
        raise RecipeError(" ".join(str(ex).split())) from None


def system_error(error: BaseException | None) -> OSError | None:
    """Find the error of the operating system that is, or caused, an error."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


class ReadableLog(logging.Filter):
    """Filter for the logger ``fairseq2``.

    It folds the trace of a configuration that cannot be parsed, or of a checkpoint that cannot be
    read, into one line, and drops the record of all environment variables, which may hold secrets.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; False drops it."""
        if lists_environment(record):
            return False
        for handler in logging.getLogger().handlers + logging.getLogger("fairseq2").handlers:
            # fairseq2 makes its console handler only when a recipe runs.
            if not isinstance(handler, logging.FileHandler) and not handler.filters:
                handler.addFilter(_is_short)
        message = _one_line(record.exc_info[1]) if record.exc_info else None
        if message is not None:
            record.msg, record.args = message, ()
            record.exc_info = record.exc_text = None
        return True


def _one_line(error: BaseException | None) -> str | None:
    """What to say in place of a trace; None for a bug, which keeps its trace."""
    if isinstance(error, ModelFileError):
        return f"{error.path}: {_folded(error)}"
    if isinstance(error, RecipeConfigParseError):
        return _folded(error)
    if isinstance(error, Exception) and is_configuration_error(error):
        return f"The recipe's configuration cannot be read: {_folded(error)}"
    failed = system_error(error) if isinstance(error, OperationalError) else None
    return None if failed is None else f"{failed.strerror}: {failed.filename}"


def _folded(error: BaseException | None) -> str:
    """The messages of an error and of its causes, in one line."""
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
