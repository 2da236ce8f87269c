"""What the event store owes to those who wait for it; with PostgreSQL itself it is tested by integration."""

import asyncio
from datetime import UTC, datetime
from typing import cast

import asyncpg
import pytest

from serving.state.changes import Changes
from serving.state.events import Event, EventStore


class Broken:
    """A pool whose every statement fails in a way that nobody foresaw."""

    async def fetch(self, *_: object) -> list[object]:
        raise ValueError("unforeseen")


def test_an_unforeseen_error_reaches_everybody_who_waits() -> None:
    async def send() -> list[list[Event] | BaseException]:
        store = EventStore("", Changes(1))
        store._pool = cast("asyncpg.Pool", Broken())  # pyright: ignore[reportPrivateUsage]
        now = datetime(2025, 6, 1, tzinfo=UTC)
        events = [Event(event_id=str(one), type="view", customer_id="c", at=now) for one in range(3)]
        async with asyncio.timeout(10):
            return await asyncio.gather(*(store.add([event]) for event in events), return_exceptions=True)

    for answer in asyncio.run(send()):
        with pytest.raises(ValueError, match="unforeseen"):
            raise cast("BaseException", answer)
