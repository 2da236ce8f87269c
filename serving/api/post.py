"""JSON in, JSON out: the two routes that carry the load, as ASGI handlers inside the framework's routing.

A route of Litestar's own kind spends 50 microseconds of every call on finding out at run time what it is to be called
with, more than all else around the engine; an ASGI handler spends 3. Routing, error answers and the OpenAPI
description are the same for both.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from litestar import asgi
from litestar.exceptions import MethodNotAllowedException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from serving.api.decode import JSON, check_type

LARGEST_BODY = 2**20

Asked = TypeVar("Asked")
Answered = TypeVar("Answered", bound=Struct)


@dataclass(frozen=True)
class Post(Generic[Asked, Answered]):
    """A route that answers ``POST`` with JSON.

    Attributes:
        path: where.
        asked, answered: what the bodies are, for the description; an answer is one of several.
        decode: reads a body; raises what the route answers to one that is not right.
        answer: what to do; its docstring describes the route.
        status: of an answer.
        summary: the route in one line.
    """

    path: str
    asked: type[Struct]
    answered: Sequence[type[Struct]]
    decode: Callable[[bytes], Asked]
    answer: Callable[[Asked], Awaitable[Answered]]
    status: int
    summary: str

    def route(self) -> ASGIRouteHandler:
        """Return the route, to be registered."""
        encoder = msgspec.json.Encoder()

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["method"] != "POST":
                raise MethodNotAllowedException(headers={"allow": "POST"})
            check_type(scope)
            given = await read_body(scope, receive)
            if given is None:
                return
            answer = await self.answer(self.decode(given))
            body = encoder.encode(answer)
            headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})

        return asgi(self.path, copy_scope=False)(handle)


async def read_body(scope: Scope, receive: Receive, largest: int = LARGEST_BODY) -> bytes | None:
    """Return a request's body, or None if its client went away before all of it had arrived.

    Raises:
        RequestEntityTooLarge: it is, or says it is, of more bytes than the largest may have.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > largest:
            raise RequestEntityTooLarge
    parts: list[bytes] = []
    length = 0
    more = True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        length += len(part)
        if length > largest:
            raise RequestEntityTooLarge
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)
