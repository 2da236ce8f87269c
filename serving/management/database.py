"""Connections to PostgreSQL for the management API, and what their failures mean to who asked."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import asyncpg

from embeddings.database.connection import FAILURES, Connection, pooled, said
from embeddings.errors import EventStoreUnavailable

_log = logging.getLogger("opportune.serve")

_STATEMENT_SECONDS = 60.0


class CatalogueDatabase:
    """A few connections, made when they are needed: PostgreSQL may be away, and comes back by itself.

    It answers while ``connected`` is entered, on the event loop that entered it.

    Args:
        url: of PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = cast("asyncpg.Pool", None)
        self._answering = True

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[None]:
        """Answer within the block."""
        async with pooled(self._url, statement_seconds=_STATEMENT_SECONDS) as self._pool:
            yield

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """Yield a connection within a transaction: what is written in the block is written wholly or not at all.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer; the log says why once, until it does again.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection
        except FAILURES as error:
            if self._answering:
                _log.error("PostgreSQL does not answer the management API: %s", said(error))
                self._answering = False
            raise EventStoreUnavailable(said(error)) from error
        if not self._answering:
            _log.info("PostgreSQL answers the management API again")
            self._answering = True
