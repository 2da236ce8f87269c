"""The event store's tables in PostgreSQL itself: an earlier version's are completed, and reading on misses nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg

from embeddings.database.migrate import prepare
from serving.state.event import Event
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from serving.state.statements import Page, Span
from tests.integration.server import Postgres
from tests.world import UNTIL

SPAN = Span(UNTIL, UNTIL + timedelta(days=1))
ALL = (0, 2**63 - 1)

EARLIER = """
CREATE TABLE events (
    event_id text PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    customer_id text NOT NULL,
    type text NOT NULL,
    at timestamptz NOT NULL,
    product_id text,
    offer_id text,
    location text,
    channel text,
    quantity double precision NOT NULL,
    value double precision,
    recommendation_id text
);
CREATE INDEX events_by_customer ON events (customer_id, at);
CREATE INDEX redemptions_by_offer ON events (offer_id) WHERE type = 'redemption';
"""


def event(number: int, at: datetime = UNTIL, kind: str = "purchase") -> Event:
    return Event(event_id=f"e{number}", type=kind, customer_id="c", at=at, product_id=f"p{number}")  # pyright: ignore[reportArgumentType]


def run(url: str, test: Callable[[EventStore, asyncpg.Connection], Awaitable[None]]) -> None:
    async def connected() -> None:
        store = EventStore(url, Invalidations(1))
        await prepare(url)
        async with store.connected():
            connection = await asyncpg.connect(url)
            try:
                await test(store, connection)
            finally:
                await connection.close()

    asyncio.run(connected())


def test_the_events_of_an_earlier_version_stay_in_the_order_in_which_they_came(postgres: Postgres):
    url = postgres.database()
    received = UNTIL + timedelta(hours=1)

    async def before() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(EARLIER)
        for number, hours in enumerate((0, 3, -5)):
            await connection.execute(
                "INSERT INTO events (event_id, customer_id, type, at, received_at, product_id, quantity)"
                " VALUES ($1, 'c', 'purchase', $2, $3, $4, 1)",
                f"e{number}",
                received + timedelta(hours=hours),
                received,
                f"p{number}",
            )
        await connection.close()

    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        (again,) = await store.add([event(1), event(7)], 2**40)
        assert again.event.event_id == "e7", "what was there is known"
        rows = (await store.page("c", Span(UNTIL - timedelta(days=9), SPAN.snapshot), ALL, 0, 10)).rows
        assert [row.product_id for row in rows] == ["p7", "p2", "p1", "p0"]
        stamp = int(received.timestamp())
        assert [row.arrived for row in rows] == [0, 0, stamp, 0]
        assert [row.at - stamp for row in rows[1:]] == [-5 * 3_600, 3 * 3_600, 0]
        assert await connection.fetchval("SELECT count(*) FROM events") == 4

    async def untouched(_: EventStore, connection: asyncpg.Connection) -> None:
        """A second start finds nothing left to do."""
        assert await connection.fetchval("SELECT count(DISTINCT seq) FROM events") == 4

    asyncio.run(before())
    run(url, test)
    run(url, untouched)


def test_what_commits_late_is_not_missed_by_reading_on(postgres: Postgres):
    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        slow = connection.transaction()
        await slow.start()
        await connection.execute(
            "INSERT INTO events (source, event_id, customer_id, type, at, product_id, quantity)"
            " VALUES ('http', 'slow', 'c', 'purchase', $1, 'late', 1)",
            UNTIL,
        )
        (quick,) = await store.add([event(1)], 2**40)
        page = await store.page("c", SPAN, ALL, 0, 10)
        assert [row.product_id for row in page.rows] == ["p1"]
        await slow.commit()
        later = await store.page("c", SPAN, ALL, page.mark, 10)
        assert {row.product_id for row in later.rows} == {"late", "p1"}
        assert min(row.seq for row in later.rows) < quick.seq, "though it lies before what has been read"
        assert (await store.page("c", SPAN, ALL, later.mark, 10)).rows == []
        assert (await store.page("c", SPAN, ALL, later.mark, 10)).mark >= later.mark

    run(postgres.database(), test)


def test_a_mark_passes_no_transaction_that_brought_nothing_and_may_be_forgotten(postgres: Postgres):
    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        await store.add([event(1)], 2**40)
        for _ in range(5):
            assert await store.add([event(1)], 2**40) == []
        brought = await connection.fetchval("SELECT xid::text::bigint FROM events")
        page = await store.page("c", SPAN, ALL, 0, 10)
        assert page.mark - 1 == brought
        assert await store.page("c", SPAN, ALL, page.mark, 10) == Page(page.mark, [])

    run(postgres.database(), test)


def test_a_page_holds_the_newest_between_two_places_that_the_snapshot_cannot_hold(postgres: Postgres):
    async def test(store: EventStore, _: asyncpg.Connection) -> None:
        stored = await store.add([event(number) for number in range(6)], 2**40)
        assert [one.event.event_id for one in stored] == [f"e{number}" for number in range(6)]
        assert [one.seq for one in stored] == sorted(one.seq for one in stored)
        await store.add([event(8, UNTIL - timedelta(days=1)), event(9, kind="impression")], 2**40)
        rows = (await store.page("c", SPAN, (stored[0].seq, stored[5].seq), 0, 3)).rows
        assert [row.seq for row in rows] == [one.seq for one in stored[4:1:-1]]
        assert rows[0] == stored[4].row
        late = Span(UNTIL, datetime.now(UTC) - timedelta(hours=1))
        names = [row.product_id for row in (await store.page("c", late, ALL, 0, 10)).rows]
        assert names == ["p8", "p5", "p4", "p3", "p2", "p1", "p0"], "what came after the snapshot was made is not in it"

    run(postgres.database(), test)


def test_an_event_ahead_of_the_clock_keeps_its_moment_and_the_clocks(postgres: Postgres):
    now = int(UNTIL.timestamp())

    async def test(store: EventStore, connection: asyncpg.Connection) -> None:
        ahead, same_second = UNTIL + timedelta(hours=5), UNTIL + timedelta(milliseconds=700)
        stored = await store.add([event(1, ahead), event(2, same_second), event(3)], now)
        assert [one.arrived for one in stored] == [now, 0, 0]
        rows = (await store.page("c", SPAN, ALL, 0, 10)).rows
        assert rows == [one.row for one in reversed(stored)]
        assert await connection.fetchval("SELECT at FROM events WHERE event_id = 'e1'") == ahead

    run(postgres.database(), test)
