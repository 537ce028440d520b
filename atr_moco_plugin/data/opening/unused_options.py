"""Options that do nothing beside a data set as it is found: refused, unless nobody gave them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from atr_moco_plugin.errors import InputError

_RECORDED: ContextVar[frozenset[str]] = ContextVar("recorded", default=frozenset())


@contextmanager
def recorded_options(names: Iterable[str]) -> Iterator[None]:
    """Within it, these options may do nothing: they are those that a run has recorded.

    Whoever evaluates the run has not given them. They are not dropped either: where the data set
    has only been moved, they draw the splits that the run was trained on.
    """
    token = _RECORDED.set(frozenset(names))
    try:
        yield
    finally:
        _RECORDED.reset(token)


def refuse_unused(name: str, message: str) -> None:
    """Refuse an option that does nothing.

    Args:
        name: of the option.
        message: which names it, says why it does nothing, and what to do.

    Raises:
        InputError: unless it is one of :func:`recorded_options`.
    """
    if name not in _RECORDED.get():
        raise InputError(message)
