"""Errors as RFC 9457 problem details: the one place that knows both the error tree and HTTP."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from msgspec import UNSET, Struct, UnsetType

from embeddings import errors

_log = logging.getLogger("opportune.serve")

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 1


class MalformedBody(errors.OpportuneError):
    """The body is not JSON at all."""


class UnsupportedMediaType(errors.OpportuneError):
    """The body is not declared as JSON."""


class UnknownResource(errors.OpportuneError):
    """The path names something that the catalogue does not hold."""


class Conflict(errors.OpportuneError):
    """Something is in a state in which this cannot be done to it."""


class ForeignHost(errors.OpportuneError):
    """The request was meant for another host, or comes from a page of another one."""


class Fault(Struct, frozen=True):
    """One of the faults of a batch.

    Attributes:
        index: the place of the faulty thing, from 0.
        field: of that thing.
        detail: what was expected there.
    """

    index: int
    field: str
    detail: str


class Problem(Struct, frozen=True):
    """RFC 9457 problem details.

    Attributes:
        type: a URN that names the kind of problem, for programs.
        title: the same for people; equal for all problems of a type.
        status: the HTTP status.
        detail: what is wrong with this very request, and what was expected.
        field: path of the offending value, where there is one.
        errors: every fault, where what was sent may have several; the first 1,000 of more.
        errors_left_out: how many faults there are besides, where there are more.
    """

    type: str
    title: str
    status: int
    detail: str
    field: str | UnsetType = UNSET
    errors: list[Fault] | UnsetType = UNSET
    errors_left_out: int | UnsetType = UNSET


STATUSES: dict[type[errors.OpportuneError], HTTPStatus] = {
    errors.OpportuneError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnknownReference: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidChanges: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidRule: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RepeatedChanges: HTTPStatus.CONFLICT,
    errors.StillReferred: HTTPStatus.CONFLICT,
    errors.Stale: HTTPStatus.PRECONDITION_FAILED,
    errors.InvalidTables: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.CorruptBundle: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ReleaseClosed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.EmptyStore: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RefusedByGate: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.DeviceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UnsupportedSearch: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.EventStoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.OutdatedView: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.CatalogueBehind: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    MalformedBody: HTTPStatus.BAD_REQUEST,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnknownResource: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    ForeignHost: HTTPStatus.FORBIDDEN,
}
"""Every error of the tree, and HTTP's word for it; a test proves that none is missing."""


_NAMED = 1_000
"""Faults of a batch that an answer names."""
_FAILED = "The service failed; its log says why."


def problem_of(error: errors.OpportuneError) -> Problem:
    """Return the problem details of one error."""
    status = STATUSES[type(error)]
    name = type(error).__name__
    if isinstance(error, errors.InvalidInput):
        return Problem(_urn(name), _title(name), status, f"{error.field}: {error.expected}", error.field)
    if isinstance(error, errors.InvalidChanges):
        return _several(_urn(name), _title(name), status, error.faults)
    return Problem(_urn(name), _title(name), status, _detail(error, status))


def _several(urn: str, title: str, status: HTTPStatus, faults: Sequence[tuple[int, errors.InvalidInput]]) -> Problem:
    place, first = faults[0]
    count = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults, the first"
    left_out = max(len(faults) - _NAMED, 0)
    listed = [Fault(index, fault.field, fault.expected) for index, fault in faults[:_NAMED]]
    detail = f"nothing was changed: {count} at [{place}].{first.field}: {first.expected}"
    if left_out:
        detail += f"; errors names the first {_NAMED:,} and leaves out {left_out:,}"
    return Problem(urn, title, status, detail, f"[{place}].{first.field}", listed, left_out or UNSET)


def _detail(error: errors.OpportuneError, status: HTTPStatus) -> str:
    """Return the detail for a caller; of an error inside, it tells neither paths nor the database's words."""
    if isinstance(error, errors.EventStoreUnavailable):
        return "The database does not answer; send it again later."
    if status < HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, errors.Overloaded | errors.CatalogueBehind):
        return str(error)
    return _FAILED


def problem_of_status(status: HTTPStatus, detail: str) -> Problem:
    """Return the problem details of an error that HTTP itself has a status and a phrase for."""
    return Problem(_urn(status.phrase.replace(" ", "")), status.phrase, status, detail or status.phrase)


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer an exception with problem details; Litestar calls this for every exception."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.OpportuneError):
        problem = problem_of(error)
    elif isinstance(error, HTTPException):
        headers |= error.headers or {}  # such as Allow
        inside = error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        problem = problem_of_status(HTTPStatus(error.status_code), _FAILED if inside else error.detail)
    else:
        problem = Problem(
            _urn("InternalError"),
            "Internal error",
            HTTPStatus.INTERNAL_SERVER_ERROR,
            _FAILED,
        )
    # A line for every refusal would be one more load: metrics count them, and the event store tells its own state.
    refused = isinstance(error, errors.Overloaded | errors.CatalogueBehind | errors.EventStoreUnavailable)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not refused:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type=PROBLEM_JSON, headers=headers)


def _urn(name: str) -> str:
    return "urn:opportune:problem:" + _words(name, "-")


def _title(name: str) -> str:
    return _words(name, " ").capitalize()


def _words(name: str, separator: str) -> str:
    return "".join(
        separator + letter.lower() if letter.isupper() and at else letter.lower() for at, letter in enumerate(name)
    )
