"""Events in daily partitions: each counts once, lies in its day, and is forgotten when its time is over."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import cast

import asyncpg
import pytest

from embeddings.database.connection import pooled
from embeddings.database.event_days import Kept, keep_days
from embeddings.database.migrate import migrate, migrations, prepare
from serving.state.event import Event
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from serving.state.statements import PAGE, Span
from tests.integration.server import Postgres

ALL = (0, 2**63 - 1)
NOW = datetime.now(UTC)
EVER = Span(NOW - timedelta(days=3_000), NOW - timedelta(days=3_000))
DAYS = """
SELECT event_id, tableoid::regclass::text AS part, timezone('UTC', greatest(at, received_at))::date AS day
FROM events ORDER BY event_id
"""
INSERT = """
INSERT INTO events (source, event_id, customer_id, type, at, received_at, quantity)
VALUES ($1, $2, 'c', 'view', $3, $3, 1)
"""


def event(name: str, at: datetime = NOW, kind: str = "view") -> Event:
    return Event(event_id=name, type=kind, customer_id="c", at=at, product_id="p")  # pyright: ignore[reportArgumentType]


def run(url: str, test: Callable[[EventStore, asyncpg.Connection], Awaitable[None]]) -> None:
    async def connected() -> None:
        await prepare(url)
        store, connection = EventStore(url, Invalidations(1)), await asyncpg.connect(url)
        async with store.connected():
            try:
                await test(store, connection)
            finally:
                await connection.close()

    asyncio.run(connected())


async def installed(connection: asyncpg.Connection, days: int) -> None:
    """Have the partitions of days begin as where they have been made for so many days."""
    await connection.execute("ALTER TABLE events DETACH PARTITION events_past")
    bound = f"{NOW - timedelta(days=days):%Y-%m-%d} 00:00Z"
    await connection.execute(
        f"ALTER TABLE events ATTACH PARTITION events_past FOR VALUES FROM (MINVALUE) TO ('{bound}')"
    )


async def names(store: EventStore, *events: Event) -> list[str]:
    return [one.event.event_id for one in await store.add(events, 2**40)]


async def old(connection: asyncpg.Connection, name: str, days: int, source: str = "http") -> date:
    """Have an event stored as it was so many days ago; returns its day."""
    at = NOW - timedelta(days=days)
    await connection.execute(INSERT, source, name, at)
    await connection.execute("INSERT INTO event_keys VALUES ($1, $2, $3)", source, name, at.date())
    return at.date()


async def kept(connection: asyncpg.Connection) -> list[str]:
    """The events that are kept, which are those whose keys are."""
    found = [row[0] for row in await connection.fetch("SELECT event_id FROM events ORDER BY event_id")]
    assert [row[0] for row in await connection.fetch("SELECT event_id FROM event_keys ORDER BY event_id")] == found
    return found


def test_an_id_counts_once_whatever_moment_and_day_it_comes_with(postgres: Postgres):
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)

    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        before, after = event("e", midnight - timedelta(microseconds=1)), event("e", midnight)
        assert await names(store, before, after) == ["e"]
        for moment in (midnight, midnight - timedelta(seconds=1), NOW - timedelta(days=400), NOW):
            assert await names(store, event("e", moment)) == []
        assert await kept(connection) == ["e"]
        assert await names(store, event("f", midnight)) == ["f"]
        days = [(row["part"], row["day"]) for row in await connection.fetch(DAYS)]
        assert days == [(f"events_{day:%Y%m%d}", day) for day in (midnight.date() - timedelta(days=1), midnight.date())]

    run(postgres.database(), test)


def test_ids_are_unique_within_their_source(postgres: Postgres):
    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        await old(connection, "e", 0, "load")
        assert await names(store, event("e")) == ["e"]
        assert await names(store, event("e")) == []
        assert await connection.fetchval("SELECT count(*) FROM events WHERE event_id = 'e'") == 2

    run(postgres.database(), test)


def test_two_servers_at_once_store_an_id_once(postgres: Postgres):
    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        other = EventStore(store._url, Invalidations(1))  # pyright: ignore[reportPrivateUsage]
        async with other.connected():
            for number in range(20):
                same = [event(f"{number}-{one}") for one in range(50)]
                answers = await asyncio.gather(names(store, *same), names(other, *same[::-1]))
                assert len(answers[0]) + len(answers[1]) == 50
        assert await connection.fetchval("SELECT count(*) FROM events") == 1_000

    run(postgres.database(), test)


def test_what_lies_in_no_days_partition_is_stored_all_the_same_and_stays_where_it_is(postgres: Postgres):
    far = NOW + timedelta(days=2_000)

    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        assert await names(store, event("far", far)) == ["far"]
        await connection.execute("SELECT make_day('events', $1)", far.date())
        assert await names(store, event("further", far)) == ["further"]
        assert {row["part"] for row in await connection.fetch(DAYS)} == {"events_other"}
        assert len((await store.page("c", EVER, ALL, 0, 9)).rows) == 2

    run(postgres.database(), test)


def test_the_coming_days_have_partitions_however_many_servers_make_them(postgres: Postgres):
    async def test(_: EventStore, connection: asyncpg.Connection) -> None:
        url = str(await connection.fetchval("SELECT current_database()"))
        connections = [await asyncpg.connect(postgres.url(url)) for _ in range(4)]
        await asyncio.gather(*(keep_days(one) for one in connections))
        for one in connections:
            await one.close()
        made = await connection.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
            " WHERE inhparent = 'events'::regclass ORDER BY name"
        )
        now = await connection.fetchval("SELECT now()")
        assert isinstance(now, datetime)
        days = {f"events_{now + timedelta(days=ahead):%Y%m%d}" for ahead in range(4)}
        assert days <= {row["name"] for row in made}
        assert len(made) in (6, 7), "those, that of the past and the one for all else; around midnight one more"

    run(postgres.database(), test)


@pytest.mark.parametrize("where", ["events_2", "events_past", "events_other"])
def test_days_that_are_over_are_forgotten_with_their_keys_wherever_they_lie(postgres: Postgres, where: str):
    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        if where != "events_past":
            await installed(connection, 20)
        if where == "events_2":
            await connection.execute(
                "SELECT make_day('events', timezone('UTC', now())::date - ago) FROM generate_series(1, 12) AS ago"
            )
        for days in (12, 11, 9, 8):
            await old(connection, f"{days:02}", days)
        assert all(row["part"].startswith(where) for row in await connection.fetch(DAYS))
        await names(store, event("new"), event("late", NOW - timedelta(days=100)))
        await keep_days(connection)
        assert await kept(connection) == ["08", "09", "11", "12", "late", "new"]
        await keep_days(connection, Kept(10, None))
        assert await kept(connection) == ["08", "09", "late", "new"], "what arrived today is of today"
        assert await connection.fetchval("SELECT to_regclass($1)", f"events_{NOW - timedelta(days=11):%Y%m%d}") is None
        assert await names(store, event("11"), event("09")) == ["11"], "an id counts once as long as its event is kept"

    run(postgres.database(), test)


def test_to_forget_is_not_in_the_way_of_readers_and_is_done_the_next_time(postgres: Postgres):
    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        await installed(connection, 30)
        await connection.execute("SELECT make_day('events', timezone('UTC', now())::date - 20)")
        await old(connection, "old", 20)
        await old(connection, "past", 40)
        reader = await asyncpg.connect(postgres.url(str(await connection.fetchval("SELECT current_database()"))))
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT count(*) FROM events")
        await keep_days(connection, Kept(10, None))
        assert await kept(connection) == ["old"], "the reader keeps it, and nobody waits"
        assert await names(store, event("old")) == [], "it counts once as long as it is there"
        await reading.rollback()
        await reader.close()
        await keep_days(connection, Kept(10, None))
        assert await kept(connection) == []

    run(postgres.database(), test)


def test_days_of_which_events_are_brought_in_have_partitions_unless_they_are_past(postgres: Postgres):
    async def test(_: EventStore, connection: asyncpg.Connection) -> None:
        await installed(connection, 10)
        days = [(NOW - timedelta(days=ago)).date() for ago in (400, 11, 10, 5, 1, -9)]
        await keep_days(connection, days=days)
        await keep_days(connection, days=days)
        for ago in (400, 11, 10, 5, 1, -9, 2, -20):
            await old(connection, f"{ago:04}", ago)
        found = {row["event_id"]: row["part"] for row in await connection.fetch(DAYS)}
        assert {name for name, part in found.items() if part == "events_past"} == {"0400", "0011"}
        assert {name for name, part in found.items() if part == "events_other"} == {"0002", "-020"}
        assert found["0010"] == f"events_{days[2]:%Y%m%d}"

    run(postgres.database(), test)


@pytest.mark.parametrize("made", [0, 3])
def test_what_lay_elsewhere_before_the_first_day_goes_to_the_past(postgres: Postgres, made: int):
    url = postgres.database()

    async def before() -> None:
        connection = await asyncpg.connect(url)
        await migrate(connection, migrations()[:6])
        if made:
            await connection.execute("SELECT make_event_day(timezone('UTC', now())::date - $1::integer)", made)
        for ago in (90, 4, 3, 2, 0, -40):
            await old(connection, f"{ago:03}", ago)
        await connection.close()

    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        found = {row["event_id"]: row["part"] for row in await connection.fetch(DAYS)}
        past = {"090", "004"} if made else {"090", "004", "003", "002"}
        assert {name for name, part in found.items() if part == "events_past"} == past
        assert len(await kept(connection)) == 6
        assert len((await store.page("c", EVER, ALL, 0, 9)).rows) == 6
        await keep_days(connection, Kept(10, None))
        assert len(await kept(connection)) == 5

    asyncio.run(before())
    run(url, test)


def test_who_leaves_does_not_wait_for_a_database_that_has_fallen_silent():
    class Silent:
        """Gives the lock, and answers nothing more."""

        async def fetchval(self, *_: object) -> bool:
            return True

        async def fetch(self, *_: object) -> list[object]:
            asked.set()
            return await asyncio.Event().wait() and []

        execute = fetch

    asked = asyncio.Event()

    async def scenario() -> None:
        task = asyncio.create_task(keep_days(cast("asyncpg.Connection", Silent())))
        await asked.wait()
        task.cancel()
        async with asyncio.timeout(20):
            await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(scenario())


def test_a_history_is_read_from_the_days_since_its_snapshot_alone(postgres: Postgres):
    async def test(_: EventStore, connection: asyncpg.Connection) -> None:
        await installed(connection, 60)
        await connection.execute(
            "SELECT make_day('events', timezone('UTC', now())::date - ago) FROM generate_series(1, 60) AS ago"
        )
        since = Span(NOW - timedelta(days=2), NOW - timedelta(days=1))
        plan = await connection.fetch(f"EXPLAIN {PAGE}", *since.values, "c", *ALL, "0", 500)
        assert not any("events_past" in line for (line,) in plan)
        days = {line for (line,) in plan if " on events_2" in line}
        assert len(days) <= 3 + 1 + 3, "the days since, today and the coming ones, of more than 60"

    run(postgres.database(), test)


def test_a_history_locks_the_days_that_it_is_read_from_alone_however_often(postgres: Postgres):
    url = postgres.database()

    async def test(_: EventStore, connection: asyncpg.Connection) -> None:
        await installed(connection, 60)
        await connection.execute(
            "SELECT make_day('events', timezone('UTC', now())::date - ago) FROM generate_series(1, 60) AS ago"
        )
        since = Span(NOW - timedelta(days=2), NOW - timedelta(days=1))
        async with pooled(url, statement_seconds=60) as pool, pool.acquire() as lent:
            for _turn in range(10):  # from the sixth time on PostgreSQL may keep a plan for any moment
                async with lent.transaction():
                    await lent.fetch(PAGE, *since.values, "c", *ALL, "0", 500)
                    held = await lent.fetchval(
                        "SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
                        "WHERE pid = pg_backend_pid() AND relname ~ '^events_[0-9]{8}$'"
                    )
                assert held <= 3 + 1 + 3

    run(url, test)


def test_events_of_the_format_before_go_to_their_days_in_the_order_of_arrival(postgres: Postgres):
    url = postgres.database()

    async def before() -> None:
        connection = await asyncpg.connect(url)
        await migrate(connection, migrations()[:3])
        for number, (at, received) in enumerate([(9, 5), (3, 4), (40, 4), (-1, 0), (0, 0)]):
            await connection.execute(
                "INSERT INTO events (event_id, customer_id, type, at, received_at, product_id, quantity, context)"
                " VALUES ($1, 'c', 'view', $2, $3, $1, 1, '{\"weather\": \"rain\"}')",
                f"e{number}",
                NOW - timedelta(days=at),
                NOW - timedelta(days=received),
            )
        await connection.close()

    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        found = await connection.fetch(DAYS)
        days = [(NOW - timedelta(days=ago)).date() for ago in (5, 3, 4, -1, 0)]
        assert [(row["part"], row["day"]) for row in found] == [(f"events_{day:%Y%m%d}", day) for day in days]
        assert await kept(connection) == [f"e{number}" for number in range(5)]
        assert await names(store, *(event(f"e{number}") for number in range(6))) == ["e5"]
        rows = (await store.page("c", EVER, ALL, 0, 9)).rows
        assert [row.product_id for row in rows] == ["p", "e4", "e3", "e2", "e1", "e0"]
        contexts = await connection.fetchval("SELECT count(*) FROM events WHERE context ->> 'weather' = 'rain'")
        assert contexts == 5

    asyncio.run(before())
    run(url, test)
