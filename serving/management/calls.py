"""Calls of the management API: a table of methods and paths, matched against the path as it was sent.

The framework matches decoded paths, in which an id with a slash is several parts. So it hands whatever lies below
``/v1`` to one handler, and that reads ids off the raw path.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Request, asgi
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from embeddings.catalogue.context import CONTROL_CHARACTERS, LONGEST_ID
from embeddings.errors import InvalidInput
from serving.api.decode import JSON, check_type, read_query
from serving.api.post import read_body
from serving.api.problems import UnknownResource

LARGEST_BODY = 2**26
_LARGE_BODY = 2**22
"""Of larger ones, and of those that do not say how large they are, one is read and worked on at a time."""
_LARGE_SECONDS = 60.0
"""How long a large one may take to arrive while others wait."""
MERGE_PATCH, NDJSON = b"application/merge-patch+json", b"application/x-ndjson"

_ACTOR, _NOBODY = "x-actor", "admin"
_CONTROL = re.compile(f"[{CONTROL_CHARACTERS}]")

Query = TypeVar("Query", bound=Struct)


class Asked(NamedTuple):
    """A request that was matched with a call.

    Attributes:
        id: the one that the path names; empty where it names none.
        body: of a write.
        media_type: what the body is declared as.
        actor: who says to ask; nothing verifies it.
    """

    request: Request[Any, Any, Any]
    id: str
    body: bytes
    media_type: bytes
    actor: str

    def query(self, kind: type[Query]) -> Query:
        """Return the query string; raise InvalidInput if it is not of this kind."""
        return read_query(self.request.query_params, kind)


class Answer(NamedTuple):
    """An answer.

    Attributes:
        body: what is written as JSON; None for none.
        etag: of the thing that was asked about.
    """

    body: Any
    etag: int | None = None
    status: int = 200


@dataclass(frozen=True)
class Call:
    """One method on one path.

    Attributes:
        path: with ``{id}`` where any id may stand, percent-encoded.
        answer: what to do; its docstring describes the call.
        answered: the type of the answer, for the description.
        asked: the type of the body, for the description; None where there is none.
        accepts: what the body of a write may be declared as. A page of another site can send some types without asking,
            and none of these, so writes without a body declare one, too.
        query: the type of the query string.
    """

    method: str
    path: str
    answer: Callable[[Asked], Awaitable[Answer]]
    answered: type[Struct]
    summary: str
    asked: Any = None
    accepts: Sequence[bytes] = ()
    query: type[Struct] | None = None
    pattern: re.Pattern[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Make the pattern that raw paths are matched with."""
        pattern = re.escape(self.path).replace(r"\{id\}", "(?P<id>.+)")
        object.__setattr__(self, "pattern", re.compile(pattern.encode(), re.DOTALL))


def route(calls: Sequence[Call]) -> ASGIRouteHandler:
    """Return the handler of all calls; of those that match, the first of a method answers."""
    encoder = msgspec.json.Encoder()
    alone = asyncio.Lock()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotFoundException
        call, one = _matched(calls, scope["method"], scope["raw_path"])
        if call.accepts and _is_large(scope):
            async with alone:
                answer = await _answered(call, one, scope, receive, _LARGE_SECONDS)
        else:
            answer = await _answered(call, one, scope, receive, None)
        if answer is None:
            return
        content = b"" if answer.body is None else encoder.encode(answer.body)
        headers = [(b"content-length", b"%d" % len(content))]
        if answer.body is not None:
            headers.append((b"content-type", JSON))
        if answer.etag is not None:
            headers.append((b"etag", b'"%d"' % answer.etag))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})

    return asgi("/v1", is_mount=True, copy_scope=False)(handle)


def _is_large(scope: Scope) -> bool:
    """Return whether a body is large, or may be."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return not value.isdigit() or int(value) > _LARGE_BODY
    return any(name == b"transfer-encoding" for name, _ in scope["headers"])


async def _answered(call: Call, one: str, scope: Scope, receive: Receive, body_seconds: float | None) -> Answer | None:
    """Return the answer to a request, whose body may take so long to arrive; None if its client went away."""
    request = Request[Any, Any, Any](scope, receive)
    media_type, body = b"", b""
    if call.accepts:
        media_type = check_type(scope, call.accepts)
        try:
            async with asyncio.timeout(body_seconds):
                given = await read_body(scope, receive, LARGEST_BODY)
        except TimeoutError:
            raise HTTPException(
                f"expected a body of more than {_LARGE_BODY:,} bytes, or of no declared length, within "
                f"{body_seconds:g} s",
                status_code=408,
            ) from None
        if given is None:
            return None
        body = given
        if call.asked is None and body.strip() not in (b"", b"{}"):
            raise InvalidInput("body", "expected none, or {}")
    if call.query is None and request.query_params:
        raise InvalidInput(next(iter(request.query_params)), "expected no query parameters")
    return await call.answer(Asked(request, one, body, media_type, _actor(request.headers)))


def _matched(calls: Sequence[Call], method: str, raw_path: bytes) -> tuple[Call, str]:
    """Return the call that a request is for, and the id that its path names.

    Raises:
        NotFoundException: there is no such path.
        MethodNotAllowedException: it takes other methods.
        UnknownResource: the id is not UTF-8.
    """
    allowed: dict[str, None] = {}
    for call in calls:
        found = call.pattern.fullmatch(raw_path)
        if found is None:
            continue
        if call.method == method:
            try:
                return call, unquote_to_bytes(found.groupdict().get("id", b"")).decode()
            except UnicodeDecodeError:
                raise UnknownResource("expected an id in UTF-8, percent-encoded") from None
        allowed[call.method] = None
    if not allowed:
        raise NotFoundException
    raise MethodNotAllowedException(headers={"allow": ", ".join(allowed)})


def _actor(headers: Mapping[str, str]) -> str:
    given = headers.get(_ACTOR, _NOBODY)
    try:
        actor = given.encode("latin-1").decode()
    except UnicodeDecodeError:
        actor = ""
    if not 1 <= len(actor) <= LONGEST_ID or _CONTROL.search(actor):
        raise InvalidInput(
            "X-Actor", f"expected 1 to {LONGEST_ID} characters in UTF-8, none of them a control character"
        )
    return actor
