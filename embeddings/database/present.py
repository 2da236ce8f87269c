"""Reads the present catalogue and the past of its things, as people look at them: one, page by page, through time."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from embeddings.catalogue.changes import Kind
from embeddings.database.changelog import Entry
from embeddings.database.connection import Connection
from embeddings.database.paging import fetch_rows

_ONE = """
SELECT id, seq, body::text FROM catalogue WHERE kind = $1 AND id = $2 AND NOT withdrawn
"""

_FOUND = """(
    position(lower($4::text {collate}) IN lower(id {collate})) > 0
    OR position(lower($4::text {collate}) IN lower((body ->> 'name') {collate})) > 0
)"""

_UNICODE_SINCE = 17
"""The version of PostgreSQL that knows upper and lower case of all scripts, whatever the database's locale."""

_STATUS = """
CASE WHEN coalesce(body ->> 'status', 'live') <> 'live' THEN body ->> 'status'
     WHEN (body ->> 'ends')::timestamptz <= $4 THEN 'ended'
     WHEN (body ->> 'starts')::timestamptz > $4 THEN 'scheduled'
     ELSE 'live' END
"""

_PAGE = """
SELECT id, seq, body::text FROM catalogue
WHERE kind = $1 AND NOT withdrawn AND seq < $2 {conditions}
ORDER BY seq DESC LIMIT $3
"""

_PAST = """
SELECT seq, at, actor, kind, id, body::text FROM catalogue_changes
WHERE kind = $1 AND id = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4
"""


class Thing(NamedTuple):
    """One thing of the catalogue as it is now.

    Attributes:
        seq: of its last change.
        body: its state as JSON.
    """

    id: str
    seq: int
    body: str


async def present(connection: Connection, kind: Kind, one: str) -> Thing | None:
    """Return a thing as it is now; None if there is none of this id, or it was withdrawn."""
    record = await connection.fetchrow(_ONE, kind, one)
    return None if record is None else Thing(*record)


async def page(
    connection: Connection,
    kind: Kind,
    before: int,
    most: int,
    text: str = "",
    at: tuple[Sequence[str], datetime] | None = None,
) -> tuple[list[Thing], bool]:
    """Return things that are not withdrawn, the one that changed last first, and whether others follow.

    Args:
        connection: to the database.
        kind: of which things.
        before: only those whose last change came before this one.
        most: how many; fewer if they are large.
        text: that is a part of the id or of the name, in upper or lower case.
        at: of offers the states that they are to be in, and at which moment.
    """
    conditions, arguments = "", list[object]()
    if text:
        knows = connection.get_server_version().major >= _UNICODE_SINCE
        conditions += " AND " + _FOUND.format(collate='COLLATE "pg_c_utf8"' if knows else "")
        arguments.append(text)
    if at is not None:
        moment, states = len(arguments) + 4, len(arguments) + 5
        conditions += f" AND {_STATUS.replace('$4', f'${moment}::timestamptz')} = ANY(${states}::text[])"
        arguments += [at[1], list(at[0])]
    query = _PAGE.format(conditions=conditions)
    records, more = await fetch_rows(connection, query, kind, before, most + 1, *arguments)
    return [Thing(*record) for record in records[:most]], more or len(records) > most


async def past(connection: Connection, kind: Kind, one: str, before: int, most: int) -> tuple[list[Entry], bool]:
    """Return the changes of a thing that came before some change, the newest first, and whether others follow.

    At most so many, fewer if they are large.
    """
    records, more = await fetch_rows(connection, _PAST, kind, one, before, most + 1)
    return [Entry(*record) for record in records[:most]], more or len(records) > most
