"""Two workers' LiveHistories over one table of changes and one store, whatever happens in whatever order."""

from collections import Counter
from collections.abc import Coroutine, Generator
from copy import copy
from datetime import datetime, timedelta
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.bundle import Manifest, open_histories
from embeddings.catalog import Catalog
from embeddings.store import BundleStore
from serving.state import changes as changes_module
from serving.state.changes import SLOTS, Changes
from serving.state.events import Event, EventStore
from serving.state.live import LiveHistories
from tests.world import UNTIL

CUSTOMERS = ("c001", "nobody")


def views(workers: int) -> list[Changes]:
    """One table as each worker sees it."""
    one = Changes(workers)
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


class Turn:
    """Awaited, it lets everything else happen first."""

    def __await__(self) -> Generator[None]:
        yield


class Worker:
    """One worker's histories and its way to the store, which a test takes step by step."""

    def __init__(self, stored: list[Event], changes: Changes, opened: tuple[Any, Any, Catalog]) -> None:
        self.stored = stored
        self.changes = changes
        self.writing: Counter[str] = Counter()
        self.reads = 0
        histories, manifest, catalog = opened
        self.live = LiveHistories(histories, manifest, catalog, cast("EventStore", self), 10)

    async def since(self, customer_id: str, _cut_off: datetime, _snapshot: datetime) -> list[Event]:
        self.reads += 1
        await Turn()  # the question is on its way
        found = [event for event in self.stored if event.customer_id == customer_id]
        await Turn()  # so is the answer
        return found

    async def write(self, event: Event, acknowledged: list[Event]) -> None:
        """As a request with one event does."""
        self.writing[event.customer_id] += 1
        await Turn()
        known = event in self.stored
        if not known:
            self.stored.append(event)
        await Turn()
        self.changes.add(event.customer_id)
        await Turn()
        self.writing[event.customer_id] -= 1
        self.writing += Counter()  # forgets zeros
        if known:
            self.live.reread([event.customer_id])
        else:
            self.live.apply([event])
        acknowledged.append(event)

    async def read(self, customer_id: str, acknowledged: list[Event]) -> None:
        """As a recommend call does; sees every event once that was acknowledged before it came."""
        must = moments(acknowledged, customer_id)
        found = (await self.live.of(customer_id)).history.events_E["at"].tolist()
        seen = [at for at in found if at >= UNTIL.timestamp()]
        assert len(seen) == len(set(seen)), "no event counts twice"
        assert must <= set(seen) <= moments(self.stored, customer_id)


def moments(events: list[Event], customer_id: str) -> set[float]:
    return {event.at.timestamp() for event in events if event.customer_id == customer_id}


def finish(task: Coroutine[Any, Any, None]) -> None:
    while step(task):
        pass


def step(task: Coroutine[Any, Any, None]) -> bool:
    """Go on to its next turn; False if there is none."""
    try:
        task.send(None)
    except StopIteration:
        return False
    return True


class Play:
    """Two workers, and what is under way in them."""

    def __init__(self, opened: tuple[Any, Any, Catalog]) -> None:
        self.stored: list[Event] = []
        self.acknowledged: list[Event] = []
        self.vanished: list[Event] = []
        self.workers = [Worker(self.stored, view, opened) for view in views(2)]
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.moment = UNTIL

    def begin(self, kind: str, worker: Worker, customer: str) -> None:
        self.moment += timedelta(seconds=1)
        event = Event(event_id=str(self.moment), type="view", customer_id=customer, at=self.moment, product_id="p000")
        match kind:
            case "read":
                self.tasks.append(worker.read(customer, self.acknowledged))
            case "write":
                self.tasks.append(worker.write(event, self.acknowledged))
            case "vanish":  # its worker is killed between commit and count
                self.stored.append(event)
                self.vanished.append(event)
            case _:  # as nobody answered, it is sent again
                if self.vanished:
                    self.tasks.append(worker.write(self.vanished.pop(), self.acknowledged))

    def step(self, place: int) -> None:
        if self.tasks and not step(task := self.tasks[place % len(self.tasks)]):
            self.tasks.remove(task)

    def settle(self) -> None:
        """Let everything end; from then on nothing is read twice."""
        for task in self.tasks:
            finish(task)
        for worker in self.workers:
            reads = []
            for _ in range(2):
                for customer in CUSTOMERS:
                    finish(worker.read(customer, self.acknowledged))
                reads.append(worker.reads)
            assert reads[0] == reads[1], "what nobody changed is not read again"


@pytest.mark.parametrize("slots", [1, SLOTS])
def test_what_any_worker_acknowledged_is_in_the_next_history_of_all_once(
    published: tuple[BundleStore, Manifest], slots: int
):
    store, manifest = published
    past, histories = open_histories(store.histories(manifest.version))
    opened = histories, past, Catalog.load(store.bundle(manifest.version) / "catalog")
    kinds = st.sampled_from(["read", "read", "write", "vanish", "repeat"])
    begin = st.tuples(kinds, st.integers(0, 1), st.sampled_from(CUSTOMERS))
    steps = st.integers(0, 20)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(begin | steps | steps | steps, max_size=60))
    def check(script: list[tuple[str, int, str] | int]) -> None:
        with mock.patch.object(changes_module, "SLOTS", slots):
            play = Play(opened)
            for one in script:
                if isinstance(one, int):
                    play.step(one)
                else:
                    play.begin(one[0], play.workers[one[1]], one[2])
            play.settle()

    check()
