"""Errors that a user can correct; all others are bugs. And lists and numbers of items for
their messages."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """A file, a configuration or an argument that cannot be used.

    The message is one sentence for the user: it names the file, row or key, what was expected and
    what to do. Command lines print it alone. Every other exception keeps its traceback, because it
    is a bug, of this package or of a plugin. A plugin raises this class for a user's mistakes.
    """


class DeviceError(InputError):
    """What a device cannot compute. It says nothing of the sound or the sentence."""


class ChangedError(InputError):
    """Files that another process has replaced since they were opened. What is read from now on is
    something else, so that the run ends, where it would pass over a clip."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that a user named and that is not there."""

    # `OSError` would show an errno, and takes one argument for none.
    __str__ = ValueError.__str__


def listed(items: Sequence[str], most: int = 3, *, of: int | None = None) -> str:
    """The first items of a list, for a message: ``a, b, c and 7 more``, and all where one would be
    left; ``of`` is how many there are where the list has not all of them."""
    total = len(items) if of is None else of
    shown = items if total <= len(items) <= most + 1 else items[:most]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things, for a message: ``1 clip``, ``2,000 clips``; ``several`` where the plural
    is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
