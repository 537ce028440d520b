"""A user's mistake ends in one line, not in a page of trace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fairseq2.recipe.error import RecipeConfigParseError, RecipeError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what this package raises for bad input into fairseq2's ``RecipeError``, which its
    command line prints as one line with exit status 2."""
    try:
        yield
    except (ValueError, FileNotFoundError) as ex:
        raise RecipeError(" ".join(str(ex).split())) from None


class OneLineConfigErrors(logging.Filter):
    """Fold the trace of a configuration that cannot be parsed into its messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; every record passes."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RecipeConfigParseError):
            messages = []
            while error is not None:
                messages.append(" ".join(str(error).split()))
                error = error.__cause__
            record.msg, record.args = " ".join(messages), ()
            record.exc_info = record.exc_text = None
        return True
