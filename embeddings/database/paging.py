"""Reads rows that hold states, no more than the memory of a page may hold."""

import asyncpg

from embeddings.database.connection import Connection

_LARGEST_PAGE = 2**23
"""Characters of the states of a page; a page of one state may have more."""
_FETCHED = 16
"""Rows fetched at a time: a few of the largest states."""


async def fetch_rows(connection: Connection, query: str, *arguments: object) -> tuple[list[asyncpg.Record], bool]:
    """Return the first rows of a query, at least one if there is any, and whether the query has others.

    Args:
        connection: to the database.
        query: gives rows with a column ``body``.
        arguments: of the query.
    """
    found: list[asyncpg.Record] = []
    size = 0
    async with connection.transaction():  # which a cursor needs
        async for record in connection.cursor(query, *arguments, prefetch=_FETCHED):
            size += len(record["body"] or "")
            if found and size > _LARGEST_PAGE:
                return found, True
            found.append(record)
    return found, False
