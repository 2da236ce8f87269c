"""Answers to requests that are refused before the application sees them."""

from http import HTTPStatus
from typing import Literal, NamedTuple

import msgspec

from embeddings.errors import Overloaded
from serving.api.problems import PROBLEM_JSON, RETRY_AFTER_SECONDS, Problem, problem_of, problem_of_status

Why = Literal["overload", "connections", "bodies", "slow", "head", "malformed"]


class Refusal(NamedTuple):
    """The reason why a request is refused before the application sees it, and the answer to it."""

    why: Why
    problem: Problem

    def written(self, *, close: bool, body: bool = True) -> bytes:
        """Return the answer as it goes over the wire."""
        content = msgspec.json.encode(self.problem)
        status = HTTPStatus(self.problem.status)
        lines = [
            f"HTTP/1.1 {status} {status.phrase}",
            f"content-type: {PROBLEM_JSON}",
            f"content-length: {len(content)}",
        ]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            lines.append(f"retry-after: {RETRY_AFTER_SECONDS}")
        if close:
            lines.append("connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + (content if body else b"")


def refusal(why: Why, status: HTTPStatus, detail: str) -> Refusal:
    """Return a refusal with a status and a phrase of HTTP's own."""
    return Refusal(why, problem_of_status(status, detail))


MALFORMED = refusal("malformed", HTTPStatus.BAD_REQUEST, "expected a request of HTTP/1.1")
OVERLOAD = Refusal("overload", problem_of(Overloaded("there is more to answer than can be; send it again later")))
