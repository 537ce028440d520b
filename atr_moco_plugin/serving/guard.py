"""What stands before every request: Host, Origin and token are checked, and headers are added.

*DNS rebinding*: a page of another site gives its own name the address 127.0.0.1, and then reads
this server as if it were its own. Its requests carry its name as ``Host``, so they are refused.
*Cross-site requests*: a page of another site posts a form, or shows a picture of this server. The
browser says so in ``Origin`` and ``Sec-Fetch-Site``, so they are refused.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atr_moco_plugin.serving.access import Access
from atr_moco_plugin.serving.answers import AsciiJson

HEADERS = {
    # Scripts, styles and pictures of this server alone; `blob:` is a sound that the page has
    # fetched or recorded.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; media-src 'self' blob:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}
"""Headers of every answer."""

OPEN = "open the address that `serve` printed"


class Guard:
    """ASGI middleware that answers 403 to what must not ask, and adds :data:`HEADERS`.

    Args:
        app: what answers the rest.
        access: names and token of this server.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no websockets here: the server closes one that nobody accepts
        request = Request(scope)
        signs_in = self._signs_in(request)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                if signs_in:
                    headers.append("Set-Cookie", self._set_cookie())
            await send(message)

        problem = refusal(request, self.access, signs_in)
        app = self.app if problem is None else _refused(problem, request)
        signs_in = signs_in and problem is None
        await app(scope, receive, send_with_headers)

    def _signs_in(self, request: Request) -> bool:
        """Whether a request is for the page, with the token in its address."""
        token = request.query_params.get("token", "")
        is_page = request.method == "GET" and request.url.path == "/"
        return bool(self.access.token) and is_page and self.access.knows_token(token)

    def _set_cookie(self) -> str:
        cookie = f"{self.access.cookie}={self.access.token}"
        return f"{cookie}; Path=/; HttpOnly; SameSite=Strict"


def refusal(request: Request, access: Access, signs_in: bool = False) -> str | None:
    """Why a request is refused, in one sentence; ``None`` where it is not.

    Args:
        request: its headers are looked at.
        access: names and token of this server.
        signs_in: whether its address carries the token.
    """
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not access.knows_host(hosts[0]):
        named = repr(", ".join(hosts)[:80]) if hosts else "no host"
        return (
            f"This server does not go by the name {named}; {OPEN}, or start it with "
            "--allow-host for a proxy."
        )
    reads = request.method in ("GET", "HEAD")
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() not in (f"{s}://{hosts[0].lower()}" for s in _SCHEMES):
        return f"Pages of other sites may not ask this server; {OPEN}."
    # Browsers tell where a request comes from; other programs have no such header. Following a
    # link to the page is fine, whoever shows the link.
    site = request.headers.get("sec-fetch-site", "none")
    follows = reads and request.url.path == "/" and _navigates(request)
    if site not in ("none", "same-origin") and not follows:
        return f"Pages of other sites may not ask this server; {OPEN}."
    if access.token and not signs_in and not access.knows_token(_token(request, access)):
        return f"This server wants its token; {OPEN}, which carries it."
    return None


_SCHEMES = ("http", "https")  # a proxy before it may speak https


def _navigates(request: Request) -> bool:
    mode, target = (request.headers.get(f"sec-fetch-{name}") for name in ("mode", "dest"))
    return mode == "navigate" and target == "document"


def _token(request: Request, access: Access) -> str:
    """The token of a request: from ``Authorization: Bearer``, or the cookie."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    # By starlette, which passes over the cookies of others that it cannot read.
    return request.cookies.get(access.cookie, "")


def _refused(problem: str, request: Request) -> Response:
    if request.url.path.startswith("/api/"):
        return AsciiJson({"error": problem}, 403)
    return PlainTextResponse(problem, 403)
