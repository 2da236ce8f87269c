"""Two workers' LiveHistories over one table of invalidations and one store, whatever happens in whatever order."""

import asyncio
from collections.abc import Coroutine
from copy import copy
from datetime import timedelta
from typing import Any, TypeVar, cast
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.catalogue.columns import Catalogue
from embeddings.release.bundle import Manifest, open_histories
from embeddings.release.store import BundleStore
from serving.state import invalidations as invalidations_module
from serving.state import live as live_module
from serving.state.event import Event, Stored
from serving.state.events import EventStore
from serving.state.invalidations import SLOTS, Invalidations
from serving.state.live import LiveHistories
from serving.state.statements import Page, Span
from tests.world import UNTIL

Result = TypeVar("Result")

CUSTOMERS = ("c001", "nobody")


def views(workers: int) -> list[Invalidations]:
    """One table as each worker sees it."""
    one = Invalidations(workers)
    seen = [copy(one) for _ in range(workers)]
    for worker, view in enumerate(seen):
        view.take(worker)
    return seen


def test_a_worker_sees_what_others_added_and_not_its_own():
    first, second, third = views(3)
    assert [view.by_others("c001") for view in (first, second, third)] == [0, 0, 0]
    second.add("c001")
    third.add("c001")
    third.add("c001")
    assert [view.by_others("c001") for view in (first, second, third)] == [3, 2, 1]
    assert hash("c001") % SLOTS != hash("nobody") % SLOTS or first.by_others("nobody") == 3


def test_one_that_takes_over_a_place_counts_on():
    first, second = views(2)
    second.add("c001")
    replaced = copy(first)
    replaced.take(1)
    replaced.add("c001")
    assert first.by_others("c001") == 2


def test_the_only_worker_has_no_others():
    (only,) = views(1)
    only.add("c001")
    assert only.by_others("c001") == 0


def test_every_worker_sees_all_redemptions_its_own_too_and_no_customer_changes_by_them():
    first, second, third = views(3)
    assert {view.redemptions for view in (first, second, third)} == {0}
    second.add_redemptions()
    third.add_redemptions()
    third.add_redemptions()
    third.add("c001")
    assert [view.redemptions for view in (first, second, third)] == [3, 3, 3]
    assert [view.by_others("c001") for view in (first, second, third)] == [1, 1, 0]


def test_what_other_servers_stored_counts_for_the_worker_that_was_told_alone():
    first, second = views(2)
    second._elsewhere = copy(second._elsewhere)  # pyright: ignore[reportPrivateUsage] - as in another process
    first.add_elsewhere({"c001"}, redeemed=True)
    assert [view.by_others("c001") for view in (first, second)] == [1, 0]
    assert [view.redemptions for view in (first, second)] == [1, 0]
    first.add_elsewhere({"c001"}, redeemed=False)
    assert (first.by_others("c001"), first.redemptions) == (2, 1)


def test_the_only_worker_hears_of_other_servers():
    (only,) = views(1)
    only.add("c001")
    only.add_elsewhere({"c001"}, redeemed=False)
    assert only.by_others("c001") == 1


def test_after_a_loss_everything_is_read_again():
    first, second = views(2)
    first.lose()
    assert [first.by_others(customer) for customer in CUSTOMERS] == [1, 1]
    assert (first.redemptions, first.losses) == (1, 1)
    assert (second.redemptions, second.losses) == (0, 0)


class Turns:
    """Everybody who is under way to the store or back; a script says who arrives next."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def come(self) -> None:
        """Wait until it is this one's turn."""
        self.waiting.append(turn := asyncio.get_running_loop().create_future())
        await turn

    async def next(self, place: int) -> None:
        """Let one of them arrive, and everybody go on as far as they can."""
        if self.waiting:
            self.waiting.pop(place % len(self.waiting)).set_result(None)
        for _ in range(8):
            await asyncio.sleep(0)


class Database:
    """Transactions, each of one event: what it brings is seen when it ends, in whatever order they began."""

    def __init__(self) -> None:
        self.begun = 0
        self.open: set[int] = set()
        self.rows: list[tuple[int, Stored]] = []

    def begin(self) -> int:
        self.begun += 1
        self.open.add(self.begun)
        return self.begun

    def end(self, transaction: int, event: Event, ahead_of: int) -> Stored | None:
        """Commit; returns what is new."""
        self.open.remove(transaction)
        if any(one.event.event_id == event.event_id for _, one in self.rows):
            return None
        # Places are given in the order in which transactions begin, which is not that in which they end.
        stored = Stored(event, transaction, ahead_of)
        self.rows.append((transaction, stored))
        return stored

    def page(self, customer_id: str, between: tuple[int, int], mark: int, most: int) -> Page:
        rows = [
            one.row
            for transaction, one in self.rows
            if transaction >= mark and between[0] < one.seq < between[1] and one.event.customer_id == customer_id
        ]
        return Page(min(self.open, default=self.begun + 1), sorted(rows, reverse=True)[:most])


class Worker:
    """One worker's histories and its way to the store."""

    def __init__(
        self, database: Database, turns: Turns, invalidations: Invalidations, opened: tuple[Any, Any, Catalogue]
    ) -> None:
        self.database = database
        self.turns = turns
        self.invalidations = invalidations
        self.reads = 0
        self.opened = opened
        self.live = self.fresh()

    def fresh(self) -> LiveHistories:
        """Histories that have everything still to be read."""
        histories, manifest, catalogue = self.opened
        return LiveHistories(histories, manifest, catalogue, cast("EventStore", self), 10)

    async def page(self, customer_id: str, _span: Span, between: tuple[int, int], mark: int, most: int) -> Page:
        self.reads += 1
        await self.turns.come()  # the question is on its way
        found = self.database.page(customer_id, between, mark, most)
        await self.turns.come()  # so is the answer
        return found

    async def write(self, event: Event, ahead_of: int, acknowledged: list[Event]) -> None:
        """As a request with one event does."""
        await self.turns.come()
        transaction = self.database.begin()
        await self.turns.come()
        stored = self.database.end(transaction, event, ahead_of)
        await self.turns.come()
        self.invalidations.add(event.customer_id)
        await self.turns.come()
        if stored is None:
            self.live.reread([event.customer_id])
        else:
            self.live.apply([stored])
        acknowledged.append(event)

    async def vanish(self, event: Event, ahead_of: int) -> None:
        """A request whose worker is killed between commit and count."""
        transaction = self.database.begin()
        await self.turns.come()
        self.database.end(transaction, event, ahead_of)

    async def read(self, customer_id: str, acknowledged: list[Event]) -> None:
        """As a recommend call does; sees every event once that was acknowledged before it came."""
        must = names(acknowledged, customer_id)
        history = (await self.live.of(customer_id)).history
        seen = [int(value) for value in history.events_E["value"].tolist() if value >= FIRST]
        assert len(seen) == len(set(seen)), "no event counts twice"
        assert must <= set(seen) <= names([one.event for _, one in self.database.rows], customer_id)


FIRST = 1_000_000
"""What an event was worth tells it from others; in the tables nothing is worth as much."""


def names(events: list[Event], customer_id: str) -> set[int]:
    return {int(event.value or 0) for event in events if event.customer_id == customer_id}


class Play:
    """Two workers, and what is under way in them."""

    def __init__(self, opened: tuple[Any, Any, Catalogue]) -> None:
        self.database, self.turns = Database(), Turns()
        self.acknowledged: list[Event] = []
        self.vanished: list[Event] = []
        self.workers = [Worker(self.database, self.turns, view, opened) for view in views(2)]
        self.tasks: list[asyncio.Task[None]] = []
        self.told = 0

    async def begin(self, kind: str, worker: Worker, customer: str, seconds: int) -> None:
        """Have something begin.

        Args:
            kind: what.
            worker: whose.
            customer: of whom.
            seconds: how far ahead of the clock an event lies; not at all if negative.
        """
        self.told += 1
        clock = UNTIL + timedelta(minutes=1, seconds=self.told // 3)
        at, ahead_of = clock + timedelta(seconds=seconds), int(clock.timestamp()) if seconds > 0 else 0
        event = Event(
            event_id=str(self.told),
            type="view",
            customer_id=customer,
            at=at,
            product_id="p000",
            value=FIRST + self.told,
        )
        match kind:
            case "read":
                begun = worker.read(customer, self.acknowledged)
            case "write":
                begun = worker.write(event, ahead_of, self.acknowledged)
            case "vanish":
                self.vanished.append(event)
                begun = worker.vanish(event, ahead_of)
            case _:  # as nobody answered, it is sent again
                if not self.vanished:
                    return
                begun = worker.write(self.vanished.pop(), ahead_of, self.acknowledged)
        self.tasks.append(asyncio.create_task(begun))
        await asyncio.sleep(0)

    async def settle(self) -> None:
        """Let everything end; from then on nothing is read twice, and memory holds what a full reading gives."""
        while self.turns.waiting:
            await self.turns.next(0)
        await asyncio.gather(*self.tasks)
        for worker in self.workers:
            reads: list[int] = []
            for _ in range(2):
                for customer in CUSTOMERS:
                    await self.finish(worker.read(customer, self.acknowledged))
                reads.append(worker.reads)
            assert reads[0] == reads[1], "what nobody changed is not read again"
        for customer in CUSTOMERS:
            whole = await self.finish(self.workers[0].fresh().of(customer))
            acknowledged = names(self.acknowledged, customer)
            for worker in self.workers:
                kept = (await worker.live.of(customer)).history.events_E
                told = [int(value) for value in kept["value"].tolist() if value >= FIRST]
                # One that vanished is known to those alone who have read since.
                expected = [int(value) for value in whole.history.events_E["value"].tolist() if value >= FIRST]
                if set(told) == set(expected):
                    assert kept.tobytes() == whole.history.events_E.tobytes()
                assert acknowledged <= set(told) <= set(expected)

    async def finish(self, begun: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.create_task(begun)
        while not task.done():
            await self.turns.next(0)
        return await task


@pytest.mark.parametrize("slots", [1, SLOTS])
def test_what_any_worker_acknowledged_is_in_the_next_history_of_all_once(
    published: tuple[BundleStore, Manifest], slots: int
):
    store, manifest = published
    past, histories = open_histories(store.histories(manifest.version))
    opened = histories, past, Catalogue.load(store.bundle(manifest.version) / "catalogue")
    kinds = st.sampled_from(["read", "read", "write", "vanish", "repeat"])
    ahead = st.sampled_from([-400, -3, -1, 0, 0, 0, 3_000])
    begin = st.tuples(kinds, st.integers(0, 1), st.sampled_from(CUSTOMERS), ahead)
    steps = st.integers(0, 20)

    async def perform(script: list[tuple[str, int, str, int] | int]) -> None:
        play = Play(opened)
        for one in script:
            if isinstance(one, int):
                await play.turns.next(one)
            else:
                await play.begin(one[0], play.workers[one[1]], one[2], one[3])
        await play.settle()

    @settings(max_examples=300, deadline=None)
    @given(st.lists(begin | steps | steps | steps, max_size=60))
    def check(script: list[tuple[str, int, str, int] | int]) -> None:
        with mock.patch.object(invalidations_module, "SLOTS", slots), mock.patch.object(live_module, "_PAGE", 3):
            asyncio.run(perform(script))

    check()
