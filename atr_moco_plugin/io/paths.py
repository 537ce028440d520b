"""Paths as people write them: ``~`` and environment variables, in options and in tables."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from atr_moco_plugin.errors import InputError

_ODD = re.compile(r"[\\~$:\s]|[^\x00-\x7f]")
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})", re.ASCII)


def expanded(path: str | os.PathLike[str], name: str) -> Path:
    """A path with ``~``, ``~user``, ``$NAME`` and ``${NAME}`` replaced, as a shell does.

    For example ``~/data`` or ``$SCRATCH/runs``. A path with a ``$`` that exists as it is written
    stays as it is.

    Args:
        path: from a configuration.
        name: of the option, for the message.

    Raises:
        InputError: for a variable that is not set or an unknown user; otherwise a folder of that
            name would be made.
    """
    text = os.fspath(path)
    if "$" in text and not os.path.lexists(text):
        text = os.path.expandvars(text)
        unknown = _VARIABLE.search(text)
        if unknown:
            raise InputError(
                f"`{name}` is {os.fspath(path)!r}, but the environment variable {unknown[0]} is "
                "not set; set it or write the path out"
            )
    home = os.path.expanduser(text)
    if home.startswith("~"):
        raise InputError(
            f"`{name}` is {os.fspath(path)!r}, but there is no home folder of "
            f"{text.split('/')[0]!r}; write the path out, or ./{text} for a folder of that name"
        )
    return Path(home)


def spellings(name: str) -> Iterator[str]:
    """A file's name from a table, and other names it may have on this machine, likeliest first.

    Each is made from the one before: a ``file:`` URL becomes a path, variables and ``~`` are
    replaced, Windows' separators too, blanks around the name go, and accents are written in one
    form of Unicode and then in the other.
    """
    yield name
    if not _ODD.search(name):
        return
    text = name
    for change in (path_of_url, os.path.expandvars, os.path.expanduser, _slashes, str.strip):
        changed = change(text)
        if changed != text:
            yield changed
        text = changed
    if not text.isascii():
        yield unicodedata.normalize("NFC", text)
        yield unicodedata.normalize("NFD", text)


def path_of_url(text: str) -> str:
    """The path of a ``file:`` URL; any other text as it is."""
    if text[:5].lower() != "file:":
        return text
    try:
        return unquote(urlsplit(text).path)
    except ValueError:  # brackets in place of a host
        return text


def _slashes(text: str) -> str:
    return text.replace("\\", "/")
