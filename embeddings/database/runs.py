"""Runs of the retraining job: who asked for them, how far they are, and how they ended.

At most one run waits or is under way, and one job does it: whoever holds the lock of `lead`, which ends with its
connection. So what is `running` while nobody, or somebody else, holds that lock belongs to a job that died.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import asyncpg
import msgspec
from msgspec import Struct

from embeddings.database.connection import Connection

NOTIFICATION = "opportune_runs"
"""The channel on which PostgreSQL tells the id of a run that was requested or has ended."""

_LOCK = 7_250_008
"""Held by the connection of the one job that does the runs; any constant of ours."""

_VANISHED = (("tcp_keepalives_idle", 30), ("tcp_keepalives_interval", 10), ("tcp_keepalives_count", 3))
"""PostgreSQL gives a lock back a minute after the machine that held it has vanished, not hours."""

Reason: TypeAlias = Literal["request", "schedule"]
State: TypeAlias = Literal["queued", "running", "published", "refused", "failed"]
Ended: TypeAlias = Literal["published", "refused", "failed"]


class Progress(Struct, frozen=True):
    """How far a run is.

    Attributes:
        stage: what it does now.
        done: how much of the stage is done.
        of: how much there is to do in it.
    """

    stage: str
    done: int
    of: int


class Run(Struct, frozen=True, kw_only=True):
    """A run of the retraining job.

    Attributes:
        requested_by: who said to ask for it; nothing verifies it.
        reason: whether it was asked for, or its time had come.
        state: queued, running, published, refused by the gate, or failed.
        started_at: when it was started first.
        attempts: how often it was started; one that was interrupted goes on and is not counted again.
        progress: how far it is, or was when it ended.
        metrics: of the release, by method and metric.
        release: the version that it published.
        message: why it was refused, failed or has to go on later.
    """

    id: int
    requested_at: datetime
    requested_by: str
    reason: Reason
    state: State
    started_at: datetime | None
    ended_at: datetime | None
    attempts: int
    progress: Progress | None
    metrics: dict[str, dict[str, float]] | None
    release: str | None
    message: str


class LoggedRun(Run, frozen=True, kw_only=True):
    """A run with the end of what it printed."""

    log: str


class End(Struct, frozen=True, kw_only=True):
    """How a run ended.

    Attributes:
        message: why, unless it published.
        release: the version that it published, with its metrics.
    """

    state: Ended
    message: str = ""
    release: str | None = None
    metrics: Mapping[str, Mapping[str, float]] | None = None


_OPEN = "state IN ('queued', 'running')"
_COLUMNS = ", ".join(
    f"{one.name}::text" if one.name in ("progress", "metrics") else one.name for one in msgspec.structs.fields(Run)
)

_INSERT = f"INSERT INTO runs (requested_by, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}"  # noqa: S608
_FIND_OPEN = f"SELECT {_COLUMNS} FROM runs WHERE {_OPEN}"  # noqa: S608
_TAKE = f"""
UPDATE runs SET state = 'running', started_at = coalesce(started_at, now()), message = '',
    attempts = attempts + CASE WHEN id = $1 THEN 0 ELSE 1 END
WHERE {_OPEN} RETURNING {_COLUMNS}
"""  # noqa: S608
_TELL = "UPDATE runs SET progress = coalesce($2::jsonb, progress), log = $3 WHERE id = $1"
_WAIT = """
UPDATE runs SET state = 'queued', message = $2, attempts = attempts - CASE WHEN $3 THEN 0 ELSE 1 END WHERE id = $1
"""
_END = """
UPDATE runs SET state = $2, ended_at = now(), message = $3, release = $4, metrics = $5::jsonb WHERE id = $1
"""
_PAGE = f"SELECT {_COLUMNS} FROM runs WHERE id < $1 ORDER BY id DESC LIMIT $2"  # noqa: S608
_ONE = f"SELECT {_COLUMNS}, log FROM runs WHERE id = $1"  # noqa: S608
_NOTIFY = "SELECT pg_notify($1, $2)"


async def request(connection: Connection, by: str, reason: Reason) -> Run:
    """Ask for a run and return it; return the one that waits or is under way, if there is one."""
    while True:
        async with connection.transaction():
            if (record := await connection.fetchrow(_INSERT, by, reason)) is not None:
                await connection.execute(_NOTIFY, NOTIFICATION, str(record["id"]))
                return _run(record)
        if (record := await connection.fetchrow(_FIND_OPEN)) is not None:  # else it has ended meanwhile
            return _run(record)


async def listen(connection: asyncpg.Connection, heard: Callable[[], None]) -> None:
    """Have a function called, as long as the connection lives, whenever a run was requested or has ended."""

    def hear(*_: object) -> None:
        heard()

    await connection.add_listener(NOTIFICATION, hear)


async def lead(connection: Connection) -> bool:
    """Try to become the one that does the runs, for as long as the connection lives; return whether that is so."""
    for name, value in _VANISHED:
        await connection.execute(f"SET {name} = {value}")
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK))


async def take(connection: Connection, interrupted: int | None = None) -> Run | None:
    """Begin the run that waits, or take up the one whose job died; return it, or None if there is none.

    Args:
        connection: of the one that does the runs, see `lead`.
        interrupted: a run whose attempt goes on, as nothing was wrong but the caller's connection; it counts once.
    """
    record = await connection.fetchrow(_TAKE, interrupted)
    return None if record is None else _run(record)


async def tell(connection: Connection, one: int, progress: Progress | None, log: str) -> None:
    """Say how far a run is, and keep the end of what it printed."""
    told = None if progress is None else msgspec.json.encode(progress).decode()
    await connection.execute(_TELL, one, told, _storable(log))


async def wait(connection: Connection, one: int, message: str, *, counts: bool) -> None:
    """Have a run wait to be taken up again.

    Args:
        connection: to the database.
        one: the run.
        message: why.
        counts: whether the attempt counts.
    """
    await connection.execute(_WAIT, one, _storable(message), counts)


async def end(connection: Connection, one: int, ended: End) -> None:
    """End a run."""
    metrics = None if ended.metrics is None else msgspec.json.encode(ended.metrics).decode()
    async with connection.transaction():
        await connection.execute(_END, one, ended.state, _storable(ended.message), ended.release, metrics)
        await connection.execute(_NOTIFY, NOTIFICATION, str(one))


async def page(connection: Connection, before: int, most: int) -> list[Run]:
    """Return the runs before one, the newest first, at most so many."""
    return [_run(record) for record in await connection.fetch(_PAGE, before, most)]


async def find(connection: Connection, one: int) -> LoggedRun | None:
    """Return a run with the end of what it printed; None if there is none."""
    record = await connection.fetchrow(_ONE, one)
    return None if record is None else msgspec.convert(_fields(record), LoggedRun)


def _run(record: Mapping[str, Any]) -> Run:
    return msgspec.convert(_fields(record), Run)


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    decoded = {name: record[name] and msgspec.json.decode(record[name]) for name in ("progress", "metrics")}
    return {**dict(record), **decoded}


def _storable(text: str) -> str:
    """Return a text without what PostgreSQL stores in none."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
