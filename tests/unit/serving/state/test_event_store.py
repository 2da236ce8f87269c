"""What the event store owes to those who wait for it; with PostgreSQL itself it is tested by integration."""

import asyncio
from datetime import UTC, datetime
from typing import cast

import asyncpg
import pytest

from embeddings.errors import Overloaded
from serving.state.event import Event, Stored
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations


class Broken:
    """A pool whose every statement fails in a way that nobody foresaw."""

    async def fetch(self, *_: object) -> list[object]:
        raise ValueError("unforeseen")


def test_an_unforeseen_error_reaches_everybody_who_waits() -> None:
    async def send() -> list[list[Stored] | BaseException]:
        store = EventStore("", Invalidations(1))
        store._pool = cast("asyncpg.Pool", Broken())  # pyright: ignore[reportPrivateUsage]
        now = datetime(2025, 6, 1, tzinfo=UTC)
        events = [Event(event_id=str(one), type="view", customer_id="c", at=now) for one in range(3)]
        async with asyncio.timeout(10):
            return await asyncio.gather(*(store.add([event], 0) for event in events), return_exceptions=True)

    for answer in asyncio.run(send()):
        with pytest.raises(ValueError, match="unforeseen"):
            raise cast("BaseException", answer)


class Slow:
    """A pool whose statements end when it is told so; what they stored is not said to be new."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def fetch(self, *_: object) -> list[object]:
        await self.go_on.wait()
        return []


def test_events_do_not_wait_without_bound_for_a_slow_commit() -> None:
    async def send() -> None:
        store, pool = EventStore("", Invalidations(1)), Slow()
        store._pool = cast("asyncpg.Pool", pool)  # pyright: ignore[reportPrivateUsage]
        now = datetime(2025, 6, 1, tzinfo=UTC)
        events = [Event(event_id=str(one), type="view", customer_id="c", at=now) for one in range(1_000)]
        waiting: list[asyncio.Task[list[Stored]]] = []
        async with asyncio.timeout(10):
            for _ in range(100):
                waiting.append(asyncio.create_task(store.add(events, 0)))
                await asyncio.sleep(0)
            refused = [one for one in waiting if one.done()]
            assert 80 <= len(refused) <= 90
            for one in refused:
                assert isinstance(one.exception(), Overloaded)
            pool.go_on.set()
            assert await asyncio.gather(*(one for one in waiting if one not in refused)) == [[]] * (100 - len(refused))
            assert await store.add(events, 0) == []

    asyncio.run(send())
