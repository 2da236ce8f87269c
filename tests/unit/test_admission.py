import asyncio
from typing import Any

import msgspec
import pytest

from serving.admission import admitted


class Asgi:
    """An application that answers when told to, and what it and its callers saw."""

    def __init__(self) -> None:
        self.reached = 0
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        self.reached += 1
        await self.released.wait()
        if scope["path"] == "/v1/broken":
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def call(app: Any, path: str = "/v1/recommend") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "path": path}, None, send)
    return sent


async def turn() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_more_than_may_be_under_way_is_refused_without_being_looked_at():
    async def scenario() -> None:
        inner = Asgi()
        app = admitted(inner, 2)
        inside = [asyncio.create_task(call(app)) for _ in range(2)]
        await turn()
        start, body = await call(app)
        assert inner.reached == 2
        assert start["status"] == 503
        assert dict(start["headers"])[b"retry-after"] == b"1"
        assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
        assert int(dict(start["headers"])[b"content-length"]) == len(body["body"])
        assert msgspec.json.decode(body["body"])["type"] == "urn:opportune:problem:overloaded"
        inner.released.set()
        assert [sent[0]["status"] for sent in await asyncio.gather(*inside)] == [200, 200]
        assert (await call(app))[0]["status"] == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_and_metrics_are_always_answered(path: str):
    async def scenario() -> None:
        inner = Asgi()
        app = admitted(inner, 1)
        inside = asyncio.create_task(call(app))
        await turn()
        watched = asyncio.create_task(call(app, path))
        await turn()
        inner.released.set()
        assert (await watched)[0]["status"] == 200
        await inside

    asyncio.run(scenario())


def test_a_request_that_fails_or_is_cancelled_makes_room():
    async def scenario() -> None:
        inner = Asgi()
        app = admitted(inner, 1)
        gone = asyncio.create_task(call(app))
        await turn()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        inner.released.set()
        with pytest.raises(RuntimeError):
            await call(app, "/v1/broken")
        assert (await call(app))[0]["status"] == 200

    asyncio.run(scenario())
