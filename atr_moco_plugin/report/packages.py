"""What pages are made with, which is an extra: one sentence where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from atr_moco_plugin.errors import InputError

PACKAGES = ("jinja2", "matplotlib")
"""Imported by the modules that draw and write pages."""


@contextmanager
def page_packages(
    what: str = "The page", then: str = "", error: type[Exception] = InputError
) -> Iterator[None]:
    """For an import of such modules.

    Args:
        what: is to be made.
        then: the end of the sentence, on what else to do.
        error: what is raised where a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as ex:
        package = (ex.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise error(_sentence(package, what, then)) from None


def check_page_packages(what: str = "The page", then: str = "") -> None:
    """The same before hours of work, whose page could not be made.

    Args:
        what: is to be made.
        then: the end of the sentence, on what else to do.

    Raises:
        InputError: where a package is not installed.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise InputError(_sentence(package, what, then))


def _sentence(package: str, what: str, then: str) -> str:
    return f"{what} needs {package}; install it with `pip install atr-moco-plugin[report]`{then}."
