"""A connection to a server that is kept alive: cheap enough to send hundreds of requests a second beside the server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_HEAD = b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class KeptConnection:
    """A connection to a server on this machine; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "KeptConnection":
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, path: str, body: bytes, method: str = "POST") -> bytes:
        """Return the body of the answer to a request of JSON; raise RuntimeError if it is none of 200 to 299."""
        self._writer.write(_HEAD % (method.encode(), path.encode(), len(body)) + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        answer = await self._reader.readexactly(int(length.partition(b":")[2]))
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{method} {path} was answered {head.decode().splitlines()[0]}: {answer.decode()}")
        return answer

    def close(self) -> None:
        """Close."""
        self._writer.close()


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[KeptConnection]:
    """Yield a connection, and close it."""
    connection = await KeptConnection.open(port)
    try:
        yield connection
    finally:
        connection.close()
