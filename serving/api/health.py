"""What every process answers: whether it lives, and HEAD where GET is."""

from typing import cast

from litestar import get
from litestar.types import ASGIApp, Receive, Scope, Send


@get("/healthz", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    """200 as long as the event loop turns."""
    return {"status": "alive"}


def headed(app: ASGIApp) -> ASGIApp:
    """Return the same application with HEAD answered as GET is; the server leaves out the body."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = cast("Scope", {**scope, "method": "GET"})
        await app(scope, receive, send)

    return answer
