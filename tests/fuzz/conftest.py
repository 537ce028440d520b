"""What the fuzz tests share: how many cases, and what counts as an error of ours.

``FUZZ_CASES=1000 python -m pytest tests/fuzz`` is the full run; without the variable each test
takes a second or two and always the same cases.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

CASES = int(os.environ.get("FUZZ_CASES", "0"))

settings.register_profile(
    "fuzz",
    max_examples=CASES or 25,
    derandomize=not CASES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

Attempt = Callable[..., Any]


@pytest.fixture(scope="session")
def attempt() -> Attempt:
    """Call something with bad input: it works, or its error is one of ours."""

    def call(function: Callable[[], Any], errors: tuple[type[Exception], ...], *names: str) -> Any:
        """The result, or None where it raised.

        Args:
            function: what is called.
            errors: the documented exceptions, exactly these types.
            names: a message must have one of these in it, and must be one line.
        """
        try:
            return function()
        except Exception as error:
            message = str(error)
            ours = type(error) in errors and any(name in message for name in names)
            if not ours or "\n" in message:
                raise AssertionError(f"not one of our errors: {error!r}") from error
            return None

    return call
