"""Running the application until it is interrupted."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from atr_moco_plugin.serving.access import Listener

MAX_HEAD = 256 * 2**10
"""Bytes of a request's address and headers: a sentence that is too long is answered as such."""


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server of an application; ``run(sockets=[...])`` runs it until ``should_exit`` is set.

    Args:
        app: see :func:`~atr_moco_plugin.serving.app.create_app`.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listener: Listener) -> None:
    """Answer requests until the process is interrupted.

    Args:
        app: see :func:`~atr_moco_plugin.serving.app.create_app`.
        listener: where.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when what is under way has been answered.
    """
    with listener.socket:
        make_server(app).run(sockets=[listener.socket])
