"""JSON answers in ASCII, and errors as one sentence."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


class AsciiJson(Response):
    """JSON in which every other character than those of ASCII is escaped.

    A file's name that is not UTF-8 is a string with lone surrogates here, which UTF-8 cannot hold.
    """

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of an answer; NaN and infinity are refused, since browsers cannot read them."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error(status: int, sentence: str) -> AsciiJson:
    """An answer that says what was wrong."""
    return AsciiJson({"error": " ".join(sentence.split())}, status)
