"""Connections to PostgreSQL: the URL to connect to, and what it says when that fails."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from embeddings.errors import EventStoreUnavailable, InvalidInput

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
"""A connection of its own, or one that a pool has lent."""

DATABASE_VARIABLE = "OPPORTUNE_DATABASE"
"""The environment's name of the PostgreSQL URL."""

WHERE = f"--database or {DATABASE_VARIABLE}"
"""How errors name the URL."""

_BROKEN = (
    ConnectionError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,  # files that it cannot read any more
    asyncpg.UndefinedTableError,  # whose tables or rights were taken away
    asyncpg.UndefinedColumnError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InternalServerError,
    asyncpg.InternalClientError,  # the driver's, of an answer that broke off
)
FAILURES = (OSError, *_BROKEN)
"""What a connection, or a statement on it, fails with whose PostgreSQL does not answer, or not as it should."""

ONLY_WHAT_IS_NEEDED = {"plan_cache_mode": "force_custom_plan"}
"""Settings of connections that read events again and again: a plan for any moment would lock all days' partitions, and
some hundred of them are more than PostgreSQL has locks for."""

DEAD = (ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError)
"""What a connection fails with whose PostgreSQL has ended since it was used last."""


def database_url(option: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the PostgreSQL URL that the command line gives, or else the one of the environment, if any.

    Raises:
        InvalidInput: the one on the command line, which other users can read, holds a password, or is no URL.
    """
    if option is None:
        return environment.get(DATABASE_VARIABLE) or None
    try:
        parts = urlsplit(option)
    except ValueError:
        raise InvalidInput("--database", "expected a URL such as postgresql://USER@HOST:5432/NAME") from None
    if parts.password or "password" in parse_qs(parts.query):
        raise InvalidInput(
            "--database",
            "expected a URL without a password, which others can read in the list of processes; set "
            f"{DATABASE_VARIABLE} to the whole URL instead",
        )
    return option


def said(error: Exception) -> str:
    """Return what an error says, or its name if it says nothing."""
    return str(error) or f"{type(error).__name__} after 5 s"


@asynccontextmanager
async def connected(url: str, *, refuses: str) -> AsyncGenerator[asyncpg.Connection]:
    """Yield a connection of its own to PostgreSQL, and close it.

    Args:
        url: of PostgreSQL.
        refuses: what PostgreSQL is said to refuse if it understands and does not do it.

    Raises:
        EventStoreUnavailable: PostgreSQL does not answer at this URL, or refuses what it is told.
        InvalidInput: it is no URL of a PostgreSQL.
    """
    connection = await _opened(url, refuses)
    try:
        yield connection
    except (*_BROKEN, asyncpg.PostgresError) as error:
        raise _unavailable(url, refuses, error) from error
    finally:
        connection.terminate()


async def _opened(url: str, refuses: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(url, timeout=5, command_timeout=60)
    except (ValueError, OverflowError):  # whose text may hold a part of a password
        raise InvalidInput(
            WHERE, "expected a URL such as postgresql://USER@HOST:5432/NAME; in a password / @ : are %2F %40 %3A"
        ) from None
    except (*FAILURES, asyncpg.PostgresError) as error:
        raise _unavailable(url, refuses, error) from error
    except (KeyError, RuntimeError) as error:  # asyncpg looks for the user's name, and for passwords in the home
        raise EventStoreUnavailable(
            f"user id {os.geteuid()} has no name or no home; give the URL a user, and set HOME"
        ) from error


def _unavailable(url: str, refuses: str, error: Exception) -> EventStoreUnavailable:
    is_refused = isinstance(error, (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError))
    does = f"refuses {refuses}" if is_refused else "does not answer"
    # A password that is not encoded may hold an @, and what follows would be taken for the host.
    host = urlsplit(url).hostname if url.count("@") <= 1 else None
    place = "" if host is None else f" (host {host})"
    return EventStoreUnavailable(f"PostgreSQL {does}: {said(error)}{place}")


@asynccontextmanager
async def pooled(
    url: str, *, statement_seconds: float, init: Callable[[Connection], Awaitable[None]] | None = None
) -> AsyncGenerator[asyncpg.Pool]:
    """Yield a few connections, made when they are needed, so PostgreSQL may be away meanwhile; close them afterwards.

    Args:
        url: of PostgreSQL.
        statement_seconds: how long a statement may take.
        init: is done on each new connection.
    """
    pool = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=4,
        command_timeout=statement_seconds,
        timeout=5,
        init=init,
        reset=_keep,
        server_settings=ONLY_WHAT_IS_NEEDED,
    )
    try:
        yield pool
    finally:
        pool.terminate()


async def _keep(_connection: object) -> None:
    """Do nothing with a connection that comes back to the pool: no statement here leaves a trace on it."""
