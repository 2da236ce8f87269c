"""Brings the schema of the database up to date: numbered files of SQL, each applied once, in order."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from embeddings.database.changelog import identify
from embeddings.database.connection import WHERE, Connection, connected
from embeddings.database.event_days import keep_days
from embeddings.database.numbering import number
from embeddings.errors import InvalidInput

# Two servers that start at once must not both migrate: the lock's number is any constant of ours.
_LOCK = 7_250_001

_MOST_SECONDS = 3_600.0
"""How long a migration may take: to write rows of an earlier version anew takes a minute for some ten million."""

_APPLIED = """
CREATE TABLE IF NOT EXISTS opportune_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

_EARLIER = {1: "event_id", 2: "seq", 3: "context"}
"""Migrations that versions applied which kept no account of them, and the column of ``events`` that shows it."""

_OWN_COLUMNS = frozenset({"event_id", "received_at", "customer_id", "type", "at", "product_id", "offer_id", "quantity"})
"""What every version's table ``events`` has; one without them is another application's."""

_HAS_TABLE = "SELECT to_regclass($1) IS NOT NULL"
_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('events') AND attnum > 0 AND NOT attisdropped
"""


class Migration(NamedTuple):
    """One file of SQL.

    Attributes:
        number: from 1, without holes.
        name: of the file, without its ending.
    """

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return all migrations that this version knows, in order."""
    found = [
        path for path in files("embeddings.database").joinpath("migrations").iterdir() if path.name.endswith(".sql")
    ]
    known = [
        Migration(int(path.name.partition("_")[0]), path.name.removesuffix(".sql"), path.read_text(encoding="utf-8"))
        for path in sorted(found, key=lambda path: path.name)
    ]
    assert [one.number for one in known] == list(range(1, len(known) + 1)), "numbers without holes"  # noqa: S101
    return known


async def prepare(url: str, *, dry_run: bool = False) -> list[str]:
    """Bring a database to the schema of this version, and return the names of the migrations that were applied.

    It is ready to take events then: transactions are numbered for its cluster, and the coming days have partitions.

    Args:
        url: of PostgreSQL.
        dry_run: whether to return the names alone, and change nothing.

    Raises:
        EventStoreUnavailable: PostgreSQL does not answer at this URL, or refuses a migration.
        InvalidInput: it is no URL of a PostgreSQL, or its schema is another one than any that this version knows.
    """
    async with connected(url, refuses="the migration of its tables") as connection:
        if dry_run:
            return [one.name for one in await pending(connection, migrations())]
        applied = await migrate(connection, migrations())
        await number(connection)
        await identify(connection)
        await keep_days(connection)
        return [one.name for one in applied]


async def pending(connection: Connection, known: list[Migration]) -> list[Migration]:
    """Return the migrations that a database lacks, in order; change nothing.

    Args:
        connection: to the database.
        known: all migrations, in order.

    Raises:
        InvalidInput: a newer version has migrated the database, or a migration is not the one that was applied.
    """
    if not await connection.fetchval(_HAS_TABLE, "opportune_migrations"):
        earlier = await _earlier(connection, known)
        return [one for one in known if one not in earlier]
    records = await connection.fetch("SELECT number, name, checksum FROM opportune_migrations")
    if records and not await connection.fetchval(_HAS_TABLE, "events"):
        raise InvalidInput(
            WHERE, "expected the table events, which this database had; restore it, or drop opportune_migrations, too"
        )
    return _lacking(known, {record["number"]: (record["name"], record["checksum"]) for record in records})


async def migrate(connection: Connection, known: list[Migration]) -> list[Migration]:
    """Apply the migrations that a database lacks, all or none; return them.

    Nothing that the database holds is lost. Several servers may migrate at once: one does, and the others wait. The
    arguments and errors are those of `pending`.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK, timeout=_MOST_SECONDS)
        lacking = await pending(connection, known)
        if not await connection.fetchval(_HAS_TABLE, "opportune_migrations"):
            await connection.execute(_APPLIED)
            for one in known:
                if one not in lacking:  # a version applied it that kept no account
                    await _note(connection, one)
        for one in lacking:
            await connection.execute(one.text, timeout=_MOST_SECONDS)
            await _note(connection, one)
    return lacking


async def _earlier(connection: Connection, known: list[Migration]) -> list[Migration]:
    """Return the migrations that a version applied which kept no account of them.

    Raises:
        InvalidInput: another application keeps its events in this database.
    """
    columns = {record["attname"] for record in await connection.fetch(_COLUMNS)}
    if columns and not columns >= _OWN_COLUMNS:
        raise InvalidInput(
            WHERE, "expected a database of its own; this one holds a table events of another application"
        )
    return [one for one in known if _EARLIER.get(one.number) in columns]


def _lacking(known: list[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    newer = sorted(applied.keys() - {one.number for one in known})
    if newer:
        names = ", ".join(applied[number][0] for number in newer)
        raise InvalidInput(
            WHERE,
            f"expected a schema of this version or an earlier one; a newer Opportune has applied {names}: use it",
        )
    for one in known:
        if one.number in applied and applied[one.number] != (one.name, one.checksum):
            raise InvalidInput(
                WHERE,
                f"expected {applied[one.number][0]} as it was applied; that of this installation is another one: "
                "install the version that migrated the database, or a newer one",
            )
    return [one for one in known if one.number not in applied]


async def _note(connection: Connection, one: Migration) -> None:
    await connection.execute(
        "INSERT INTO opportune_migrations (number, name, checksum) VALUES ($1, $2, $3)",
        one.number,
        one.name,
        one.checksum,
    )
