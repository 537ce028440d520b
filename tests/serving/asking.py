"""Ask an ASGI application without a network, as a server would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp

HOST = "localhost:8000"


class Answer(NamedTuple):
    """What came back; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: ASGIApp,
    target: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    hosts: Iterable[str] = (HOST,),
    body: bytes = b"",
    pieces: Iterator[bytes] | None = None,
) -> Answer:
    """Send a request.

    Args:
        app: what answers.
        target: path and query.
        method: of HTTP.
        headers: beside ``Host``.
        hosts: ``Host`` headers.
        body: of the request.
        pieces: of the body, taken one by one as they are asked for.
    """
    pairs = [*(("host", host) for host in hosts), *dict(headers).items()]
    parts = urlsplit(target)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }
    return asyncio.run(_ask(app, scope, iter([body]) if pieces is None else pieces))


async def _ask(app: ASGIApp, scope: dict[str, Any], pieces: Iterator[bytes]) -> Answer:
    status, headers, body = 0, {}, b""
    ended: list[bool] = []

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        if piece is not None:
            return {"type": "http.request", "body": piece, "more_body": True}
        if not ended:
            ended.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(60)  # the client waits
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status, body
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update((k.decode().lower(), v.decode("latin-1")) for k, v in message["headers"])
        else:
            body += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception:
        if status != 500:  # a server prints the traceback of a bug that was answered
            raise
    return Answer(status, headers, body)
