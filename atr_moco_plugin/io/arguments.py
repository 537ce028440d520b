"""A command line on which an option is given once."""

from __future__ import annotations

import argparse
from typing import Any


class OnceParser(argparse.ArgumentParser):
    """A parser that refuses a second value of an option, which would take the place of the first.
    An option that may be repeated has the ``action`` ``append`` or ``extend``. Parsers of its
    subcommands are of this class too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in (None, "store"):
            self.register("action", name, _Once)


class _Once(argparse.Action):
    """Keeps a value, once in a parsing."""

    _filled: argparse.Namespace | None = None

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the value; raises ArgumentError for a second one."""
        if self.option_strings and self._filled is namespace:
            raise argparse.ArgumentError(self, "is given twice: give it once")
        self._filled = namespace
        setattr(namespace, self.dest, values)
