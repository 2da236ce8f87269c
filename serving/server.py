"""The HTTP server as every process of the service has it."""

from typing import Any

import uvicorn
from litestar.types import ASGIApp


def configured(app: ASGIApp, drain_seconds: int, **own: Any) -> uvicorn.Config:
    """Return uvicorn's configuration: it logs no request, says nothing of itself and believes no proxy.

    Args:
        app: what answers.
        drain_seconds: how long what is under way may take once it is to leave.
        own: further options of uvicorn that only this process has.
    """
    return uvicorn.Config(
        app,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=drain_seconds,
        **own,
    )
