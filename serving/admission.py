"""Who gets in: under overload a request is refused before any work is done for it."""

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from embeddings.errors import Overloaded
from serving.api.problems import PROBLEM_JSON, RETRY_AFTER_SECONDS, problem_of

_GUARDED = "/v1/"
"""Health and metrics are always answered: they are how an operator sees the overload."""


def admitted(app: ASGIApp, most: int) -> ASGIApp:
    """The same application, answering 503 at once while ``most`` requests are under way.

    What is refused is neither routed nor decoded: a refusal has to cost a small part of an answer, or an overloaded
    service would spend itself on refusing.
    """
    problem = problem_of(Overloaded(f"{most} requests are under way already; send it again later"))
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_SECONDS).encode()),
    ]
    under_way = 0

    async def admit(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal under_way
        if scope["type"] != "http" or not scope["path"].startswith(_GUARDED):
            await app(scope, receive, send)
            return
        if under_way >= most:
            await send({"type": "http.response.start", "status": problem.status, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        under_way += 1
        try:
            await app(scope, receive, send)
        finally:
            under_way -= 1

    return admit
