"""The least server that can answer HTTP, to measure the most that the load generator itself can do."""

import asyncio
from typing import cast

import uvloop


class _Answer(asyncio.Protocol):
    """Answers whatever arrives, taken for exactly one request, with the same bytes; parses nothing."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own, registered nowhere

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - the protocol's signature
        assert self._transport is not None  # noqa: S101 - data comes after the connection
        self._transport.write(self._answer)


def answer(body_bytes: int) -> bytes:
    """Return a whole response with a body of this size."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {body_bytes}\r\n\r\n"
    return head.encode() + b" " * body_bytes


def serve(port: int, body_bytes: int) -> None:
    """Serve until killed."""

    async def forever() -> None:
        whole = answer(body_bytes)
        server = await asyncio.get_running_loop().create_server(lambda: _Answer(whole), "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(forever())
