"""Connections to PostgreSQL for the management API, and what their failures mean to who asked."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import asyncpg

from embeddings.database.changelog import Connection
from embeddings.database.connection import FAILURES, said
from embeddings.errors import EventStoreUnavailable

_log = logging.getLogger("opportune.serve")

_CONNECTIONS = 4
_CONNECT_SECONDS, _STATEMENT_SECONDS = 5.0, 60.0


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
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=_CONNECTIONS,
            timeout=_CONNECT_SECONDS,
            command_timeout=_STATEMENT_SECONDS,
            reset=_keep,
        )
        try:
            yield
        finally:
            self._pool.terminate()

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


async def _keep(_connection: object) -> None:
    """Do nothing with a connection that comes back to the pool: no transaction here leaves a trace on it."""
