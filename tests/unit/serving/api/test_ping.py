"""Readiness asked for by many, of an event store that counts how often it is asked."""

import asyncio
from typing import cast

import pytest

from embeddings.errors import EventStoreUnavailable
from serving.api.model import SharedPing
from serving.state.events import EventStore


class Pinged:
    """An event store that takes a turn of the loop to answer, or not to; and a clock moved by hand."""

    def __init__(self) -> None:
        self.pings = 0
        self.up = True
        self.clock_seconds = 0.0
        self.shared = SharedPing(cast("EventStore", self), lambda: self.clock_seconds)

    async def ping(self) -> None:
        self.pings += 1
        await asyncio.sleep(0)
        if not self.up:
            raise EventStoreUnavailable

    async def asked(self, times: int) -> set[bool]:
        return set(await asyncio.gather(*(self.shared.answers() for _ in range(times))))


def test_a_flood_asks_the_event_store_once_in_a_quarter_of_a_second():
    async def ask() -> None:
        events = Pinged()
        assert await events.asked(1_000) == {True}
        events.clock_seconds = 0.24
        assert await events.asked(1_000) == {True}
        assert events.pings == 1
        events.clock_seconds, events.up = 0.26, False
        assert await events.asked(1_000) == {False}
        events.clock_seconds, events.up = 0.52, True
        assert await events.asked(1_000) == {True}
        assert events.pings == 3

    asyncio.run(ask())


def test_one_who_goes_away_while_asking_takes_the_answer_from_nobody():
    async def ask() -> None:
        events = Pinged()
        first, second = (asyncio.create_task(events.shared.answers()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        assert events.pings == 1

    asyncio.run(ask())


def test_nobody_waits_for_a_silent_event_store_to_give_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.api.model._PATIENCE_SECONDS", 0.01)

    class Silent(Pinged):
        """Says nothing until it is told to, not even to one who cancels."""

        def __init__(self) -> None:
            super().__init__()
            self.told = asyncio.Event()

        async def ping(self) -> None:
            self.pings += 1
            try:
                await self.told.wait()
            except asyncio.CancelledError:
                await self.told.wait()
                raise

    async def ask() -> None:
        events = Silent()
        async with asyncio.timeout(30):
            assert await events.asked(3) == {False}
            events.clock_seconds = 1.0
            assert await events.asked(3) == {False}
            assert events.pings == 1
            events.told.set()
            await asyncio.sleep(0)
            assert await events.asked(3) == {True}

    asyncio.run(ask())
