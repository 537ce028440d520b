"""Who may ask a server: the names it goes by, its token, and the socket it listens on.

A page on the loopback address is reachable from every page that is open in the same browser. What
keeps those out is in :mod:`atr_moco_plugin.serving.guard`; here is what it compares with.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from atr_moco_plugin.errors import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Names that always lead to one's own machine, as they stand in a ``Host`` header."""

MIN_TOKEN = 16
"""Fewest characters of a token that somebody chose."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a request must carry.

    Attributes:
        port: that the server listens on.
        names: hosts it goes by, as they stand in a ``Host`` header before the port.
        any_address: whether it listens on all addresses of the machine. It then goes by each of
            them: a numeric address cannot be bound to another machine, as a name can.
        also: whole ``Host`` headers that are taken too, such as that of a proxy.
        token: secret that a request must carry; empty where none is needed.
    """

    port: int
    names: frozenset[str] = frozenset(LOOPBACK_NAMES)
    any_address: bool = False
    also: frozenset[str] = frozenset()
    token: str = ""

    def knows_host(self, header: str) -> bool:
        """Whether a ``Host`` header names this server."""
        header = header.lower()
        if header in self.also:
            return True
        name, _, port = (
            header.rpartition(":") if re.search(r":\d+$", header) else (header, "", "80")
        )
        if port != str(self.port):
            return False
        return name in self.names or (self.any_address and _is_address(name))

    def knows_token(self, token: str) -> bool:
        """Whether a token is the right one; takes the same time for every wrong one."""
        return hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token. Cookies do not know ports, so it says it."""
        return f"atr_moco_{self.port}"


@dataclass(frozen=True)
class Listener:
    """A socket that is bound, and how it is reached.

    Attributes:
        socket: to be given to the server.
        access: who may ask.
        url: what to type into a browser, with the token where there is one.
    """

    socket: socket.socket
    access: Access
    url: str


def listen(
    host: str = "127.0.0.1", port: int = 0, *, token: str | None = None, also: Sequence[str] = ()
) -> Listener:
    """Bind a socket and say who may ask.

    Args:
        host: an address or a name of this machine; ``0.0.0.0`` and ``::`` are all its addresses.
        port: 0 takes a free one.
        token: secret of the server; ``None`` makes one up where the page can be reached from
            another machine, and takes none where it cannot.
        also: further ``Host`` headers, such as ``sounds.example.org`` of a proxy before it.

    Raises:
        InputError: where the address is not of this machine, the port is in use or not permitted,
            or the token is too short or has characters that a cookie cannot hold.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port is {port}, expected 0 (any free one) to 65535")
    bare = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as ex:
        raise InputError(
            f"--host {host!r} is not an address that can be looked up; give one of this machine, "
            "such as 127.0.0.1 or 0.0.0.0"
        ) from ex
    numeric = ipaddress.ip_address(address[0])
    is_loopback = numeric.is_loopback and all(_is_loopback(name) for name in also)
    secret = _token(token, is_loopback)
    bound = _bind(family, kind, protocol, address)
    port = int(bound.getsockname()[1])
    names = {*LOOPBACK_NAMES, _in_header(str(numeric)), _in_header(bare.lower())}
    if numeric.is_unspecified:
        names.add(socket.gethostname().lower())
    access = Access(
        port=port,
        names=frozenset(names),
        any_address=numeric.is_unspecified,
        also=frozenset(name.lower() for name in also),
        token=secret,
    )
    shown = _own_address(numeric) if numeric.is_unspecified else bare
    query = f"?{urlencode({'token': secret})}" if secret else ""
    return Listener(bound, access, f"http://{_in_header(shown)}:{port}/{query}")


def _token(token: str | None, is_loopback: bool) -> str:
    if token is None:
        return "" if is_loopback else secrets.token_urlsafe(24)
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{{MIN_TOKEN},}}", token):
        raise InputError(
            f"--token must have at least {MIN_TOKEN} characters, each a letter, digit, - or _; "
            "leave it out to have one made"
        )
    return token


def _bind(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(128)  # now, so that a second server on this port is refused
    except OSError as ex:
        bound.close()
        raise InputError(
            f"cannot listen on port {address[1]} of {address[0]} ({ex.strerror}); take another "
            "--port (0 takes a free one) or --host"
        ) from ex
    return bound


def _own_address(listens: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The address that others most likely reach this machine by; else its name."""
    family, other = (
        (socket.AF_INET, "192.0.2.1") if listens.version == 4 else (socket.AF_INET6, "2001:db8::1")
    )
    try:
        # Says which way it would go, and sends nothing.
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((other, 9))
            return str(way.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _in_header(name: str) -> str:
    """A host as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{name}]" if ":" in name else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_loopback(header: str) -> bool:
    return re.sub(r":\d+$", "", header.lower()) in LOOPBACK_NAMES
