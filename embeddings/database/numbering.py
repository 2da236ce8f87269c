"""The numbers of transactions that brought events, which hold in whatever cluster the database is restored to.

PostgreSQL's own numbers do not: a restored database is in a cluster that counts from elsewhere, and one that was taken
back to an earlier moment, or to a standby that lacked the last commits, gives the same numbers out once more. So they
are shifted (``event_numbering``), anew whenever the database finds itself in another cluster or on another timeline.
"""

from embeddings.database.connection import Connection
from embeddings.release.bundle import DatabaseMark

# Numbers begin at the microseconds since 1970. No cluster ends a million transactions a second, so that is above every
# number given out before, also by a copy of the database that is lost or goes its own way.
_NUMBER = """
UPDATE event_numbering
SET cluster = here.cluster,
    shift = (extract(epoch FROM clock_timestamp()) * 1e6)::bigint
        - pg_snapshot_xmin(pg_current_snapshot())::text::bigint
FROM (
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS cluster
    FROM pg_control_system()
) AS here
WHERE event_numbering.cluster <> here.cluster
"""

_SEEN = """
SELECT event_snapshot()::text AS snapshot, now() AS at,
       (SELECT xid::text::bigint FROM events ORDER BY xid DESC LIMIT 1) AS newest
"""


async def number(connection: Connection) -> None:
    """Have transactions numbered for the cluster that the database is in; to be done on every new connection.

    Nearly always it finds that they are, and changes nothing.
    """
    await connection.execute(_NUMBER)


async def seen(connection: Connection) -> DatabaseMark:
    """Return a mark of the events that a transaction sees; it must be one of REPEATABLE READ, and read them, too."""
    record = await connection.fetchrow(_SEEN)
    assert record is not None  # noqa: S101 - a SELECT without FROM finds one row
    least, after, running = str(record["snapshot"]).split(":")
    # A later one has brought no event. PostgreSQL may forget it when it is killed, and give its number to another.
    end = min(int(after), (record["newest"] or 0) + 1)
    open_then = [one for one in running.split(",") if one and int(one) < end]
    return DatabaseMark(f"{min(int(least), end)}:{end}:{','.join(open_then)}", record["at"])
