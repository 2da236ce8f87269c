"""Queries and answers of the management API, and the two ways in which they name a change: cursors and ETags."""

import base64
import re
from datetime import datetime
from typing import Annotated, Any

from litestar.datastructures import Headers
from msgspec import Meta, Struct

from embeddings.catalogue.changes import Kind
from embeddings.catalogue.context import TEXT
from embeddings.errors import InvalidInput
from serving.management.editor import Precondition
from serving.management.states import ShownStatus

_ETAG = re.compile(r'"(\d{1,18})"')
_LARGEST_SEQ = 2**63 - 1

Limit = Annotated[int, Meta(ge=1, le=1_000)]
SeqNumber = Annotated[int, Meta(ge=0, lt=_LARGEST_SEQ)]


class Seq(Struct, frozen=True):
    """The newest change once a write is done: the write's own last one, or an earlier one if it changed nothing."""

    seq: int


class Item(Struct, frozen=True):
    """A thing as it is now: the last change of it, and its state."""

    seq: int
    body: dict[str, Any]


class Page(Struct, frozen=True):
    """Things, the one that changed last first; ``cursor`` leads to the next page, null where there is none."""

    items: list[Item]
    cursor: str | None


class LoggedChange(Struct, frozen=True):
    """A change: its place in the order of all, when it was made and by whom, and the state that it made.

    Attributes:
        actor: who said to be making it.
        body: null where it withdrew the thing.
    """

    seq: int
    at: datetime
    actor: str
    kind: Kind
    id: str
    withdrawn: bool
    body: dict[str, Any] | None


class History(Struct, frozen=True):
    """Changes of one thing, the newest first; ``cursor`` leads to the next page, null where there is none."""

    items: list[LoggedChange]
    cursor: str | None


class Changes(Struct, frozen=True):
    """Changes of everything, the oldest first; ask for what follows with ``after``, the last one's ``seq``."""

    items: list[LoggedChange]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of things: those whose id or name holds ``q``."""

    limit: Limit = 100
    cursor: str | None = None
    q: Annotated[str, Meta(max_length=256, pattern=TEXT)] = ""


class OffersQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """Which page of offers: those in some states, separated by commas."""

    status: tuple[ShownStatus, ...] = ()


class HistoryQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of a history."""

    limit: Limit = 100
    cursor: str | None = None


class ChangesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which changes: those that follow one."""

    after: SeqNumber = 0
    limit: Limit = 100


class Restore(Struct, frozen=True, forbid_unknown_fields=True):
    """Which change made the state to go back to."""

    seq: Annotated[int, Meta(ge=1, lt=_LARGEST_SEQ)]


def precondition(headers: Headers) -> Precondition:
    """Return what a request expects of the thing that it changes.

    Raises:
        InvalidInput: the headers hold something else than an ETag of ours or ``*``.
    """
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if none_match is not None:
        if none_match.strip() != "*" or match is not None:
            raise InvalidInput("If-None-Match", "expected * for a write, and no If-Match beside it")
        return Precondition(there=False)
    if match is None:
        return Precondition()
    if match.strip() == "*":
        return Precondition(there=True)
    return Precondition(there=True, seq=etag_of("If-Match", match))


def cursor_of(seq: int) -> str:
    """Return a cursor for what was changed last before some change."""
    return base64.urlsafe_b64encode(b"%d" % seq).decode().rstrip("=")


def before(cursor: str | None) -> int:
    """Return the change that a cursor stands for, or one after all changes without any.

    Raises:
        InvalidInput: it is no cursor of ours.
    """
    if cursor is None:
        return _LARGEST_SEQ
    try:
        seq = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        seq = -1
    if not 0 <= seq <= _LARGEST_SEQ:
        raise InvalidInput("cursor", "expected the cursor of an earlier page of the same list")
    return seq


def etag_of(header: str, given: str) -> int:
    """Return the change that an ETag of ours stands for; raise InvalidInput naming the header if it is none."""
    found = _ETAG.fullmatch(given.strip())
    if found is None:
        raise InvalidInput(header, f'expected an ETag as this service gives it, such as "1207", or *; got {given!r}')
    return int(found[1])
