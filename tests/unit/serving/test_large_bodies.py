"""Of large bodies the management API reads and works on one at a time, and small ones pass by."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from litestar.exceptions import HTTPException

from serving.api.decode import JSON
from serving.management import calls
from serving.management.calls import Answer, Asked, Call, route
from serving.management.shapes import Seq

LARGE = [(b"content-length", b"5000000")]
CHUNKED = [(b"transfer-encoding", b"chunked")]
SMALL = [(b"content-length", b"2")]


class Handled:
    """A handler whose answers wait until they are let go."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.begun: list[str] = []
        self.answered: list[str] = []
        self.go = asyncio.Event()
        call = Call("POST", "/v1/things/{id}", self._answer, Seq, "A thing", dict[str, Any], (JSON,))
        self._handle: Any = route([call]).fn

    async def _answer(self, asked: Asked) -> Answer:
        self.begun.append(asked.id)
        if asked.id != "small":
            await self.go.wait()
        return Answer(Seq(1))

    async def ask(self, one: str, headers: Sequence[tuple[bytes, bytes]], *, arrives: bool = True) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "raw_path": f"/v1/things/{one}".encode(),
            "query_string": b"",
            "headers": [(b"content-type", JSON), *headers],
            "state": {},
        }

        async def receive() -> dict[str, Any]:
            self.reads.append(one)
            if not arrives:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"{}"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                self.answered.append(one)

        await self._handle(scope, receive, send)


async def settled() -> None:
    """Let every task come as far as it can."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize("headers", [LARGE, CHUNKED])
def test_a_large_body_is_read_once_the_one_before_is_answered(headers: Sequence[tuple[bytes, bytes]]):
    async def run() -> None:
        handled = Handled()
        async with asyncio.TaskGroup() as tasks:
            for one in ("first", "second"):
                tasks.create_task(handled.ask(one, headers))
            await settled()
            await handled.ask("small", SMALL)
            assert handled.answered == ["small"]
            assert handled.reads == ["first", "small"]
            handled.go.set()
        assert handled.answered == ["small", "first", "second"]

    asyncio.run(run())


def test_a_large_body_that_does_not_arrive_makes_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calls, "_LARGE_SECONDS", 0.0)

    async def run() -> None:
        handled = Handled()
        handled.go.set()
        with pytest.raises(HTTPException) as refused:
            await handled.ask("first", LARGE, arrives=False)
        assert refused.value.status_code == 408
        monkeypatch.setattr(calls, "_LARGE_SECONDS", None)
        await handled.ask("second", LARGE)
        assert handled.answered == ["second"]

    asyncio.run(run())
