"""The writer of decisions with a PostgreSQL that is silent or lost; with a real one it is tested by integration."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import pytest

from serving.settings import DecisionsKind
from serving.state import decisions as module
from serving.state.decision import Decision, is_drawn, moment_of, new_ids
from serving.state.decisions import DecisionStore
from serving.state.events import EventStore

MOST, LARGEST = 50_000, 2_000
IDS = new_ids()


def decision(items: int = 9) -> Decision:
    names = [str(number) for number in range(items)]
    kinds, sources = ["product"] * items, ["towers"] * items
    return Decision(
        next(IDS), 0, "c", "web", None, None, {}, "v", 0, False, False, names, kinds, [0.5] * items, sources, None
    )


class Fake:
    """Takes groups in place of PostgreSQL, or fails as it is told.

    Attributes:
        groups: what it has taken.
    """

    def __init__(self, store: DecisionStore) -> None:
        self.store = store
        self.groups: list[Sequence[Decision]] = []
        self.fails: Callable[[], Awaitable[None]] | None = None
        store._insert = self.insert  # pyright: ignore[reportPrivateUsage]

    async def insert(self, group: Sequence[Decision]) -> None:
        if self.fails is not None:
            await self.fails()
        self.groups.append(list(group))

    @property
    def taken(self) -> list[Decision]:
        return [one for group in self.groups for one in group]


def store_of(kind: DecisionsKind = "all") -> DecisionStore:
    return DecisionStore("", kind, cast("EventStore", None))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY_SECONDS", 0.001)


async def silent() -> None:
    raise ConnectionRefusedError


async def turned(until: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not until():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_what_does_not_fit_is_dropped_and_told_until_all_is_stored_again():
    async def scenario() -> None:
        store = store_of()
        fake = Fake(store)
        fake.fails = silent
        async with store.writing():
            given = [decision() for _ in range(MOST // 10 + 7)]
            for one in given:
                store.add(one)
            await turned(lambda: not store._answering)  # pyright: ignore[reportPrivateUsage]
            assert store.losing is not None
            assert (store.dropped, store.losing.decisions) == (7, 7)
            store.add(decision())
            assert store.losing.decisions == 8
            assert store.stored == 0
            fake.fails = None
            await turned(lambda: store.losing is None)
            assert fake.taken == given[:-7], "in the order in which they came"
            assert (store.stored, store.dropped) == (MOST // 10, 8)
            late = decision()
            store.add(late)
            await turned(lambda: fake.taken[-1] is late)

    asyncio.run(scenario())


def test_long_answers_count_by_their_items():
    store = store_of()
    for _ in range(MOST):
        store.add(decision(99))
    assert store.dropped == MOST - MOST // 100


def test_groups_are_bounded_by_items_and_hold_one_decision_at_least():
    async def scenario() -> None:
        store = store_of()
        fake = Fake(store)
        given = [decision(items) for items in (LARGEST + 1, *[100] * 50, 0, LARGEST, 1)]
        for one in given:
            store.add(one)
        await store._write()  # pyright: ignore[reportPrivateUsage]
        assert fake.taken == given
        assert [len(group) for group in fake.groups] == [1, 20, 20, 11, 1, 1]

    asyncio.run(scenario())


def test_a_group_that_fails_is_written_again_before_all_others():
    async def scenario() -> None:
        store = store_of()
        fake = Fake(store)
        given = [decision(), decision(), decision()]
        for one in given:
            store.add(one)

        async def lost() -> None:
            store.add(later)
            raise ConnectionResetError

        later = decision()
        fake.fails = lost
        await store._write()  # pyright: ignore[reportPrivateUsage]
        fake.fails = None
        await store._write()  # pyright: ignore[reportPrivateUsage]
        assert fake.taken == [*given, later]
        assert (store.stored, store.dropped) == (4, 0)

    asyncio.run(scenario())


def test_an_error_that_nobody_foresaw_does_not_end_the_writer():
    async def scenario() -> None:
        store = store_of()
        fake = Fake(store)

        async def unforeseen() -> None:
            fake.fails = None
            raise RuntimeError

        fake.fails = unforeseen
        async with store.writing():
            store.add(decision())
            await turned(lambda: store.stored == 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("hangs", [False, True])
def test_who_leaves_does_not_wait_for_a_database_that_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hangs: bool
):
    monkeypatch.setattr(module, "_LEAVING_SECONDS", 0.05)

    async def forever() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        store = store_of()
        fake = Fake(store)
        fake.fails = forever if hangs else silent
        async with store.writing():
            for _ in range(3):
                store.add(decision())
            async with asyncio.timeout(20):
                await store.leave()

    asyncio.run(scenario())
    assert "3 decisions are lost" in caplog.text


def test_who_leaves_stores_what_waits_once_the_database_is_back():
    async def scenario() -> None:
        store = store_of()
        fake = Fake(store)

        async def back() -> None:
            fake.fails = None
            raise ConnectionRefusedError

        fake.fails = back
        async with store.writing():
            store.add(decision())
            await store.leave()
        assert len(fake.taken) == 1

    asyncio.run(scenario())


def test_of_a_sample_the_id_decides():
    ids = [next(IDS) for _ in range(500)]
    assert [store_of("sampled").wants(one) for one in ids] == [is_drawn(one) for one in ids]
    assert all(store_of("all").wants(one) for one in ids)
    assert not any(store_of("none").wants(one) for one in ids)


@pytest.mark.parametrize("text", ["", "f" * 32, "0" * 32, "é" * 32, "f" * 12 + "7" + "0" * 3 + "8" + "0" * 15])
def test_what_is_no_id_of_ours_has_no_moment(text: str):
    assert moment_of(text) is None


def test_an_id_has_its_moment():
    one = next(IDS)
    moment = moment_of(one)
    assert moment is not None
    assert round(moment.timestamp() * 1_000) == int(one[:12], 16)
