"""LiveHistories against an event store whose answers the test holds back."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from copy import copy
from datetime import datetime, timedelta
from typing import cast
from uuid import uuid4

import pytest

from embeddings.bundle import Manifest, open_histories
from embeddings.catalog import Catalog
from embeddings.errors import EventStoreUnavailable
from embeddings.history import EVENT_CODES, History
from embeddings.store import BundleStore
from serving.state.changes import Changes
from serving.state.events import Event, EventStore
from serving.state.live import Known, LiveHistories, records
from tests.world import UNTIL, favourite

HOUR = timedelta(hours=1)


def bought(customer: str, product: str | None = "p000", at: datetime = UNTIL + HOUR) -> Event:
    return Event(event_id=uuid4().hex, type="purchase", customer_id=customer, at=at, product_id=product)


class FakeStore:
    """Holds events; a read sees them as they are when it begins, and answers when ``gate`` is open."""

    def __init__(self) -> None:
        self.stored: list[Event] = []
        self.writing: Counter[str] = Counter()
        self.changes = Changes(1)
        self.gate = asyncio.Event()
        self.gate.set()
        self.reading = asyncio.Event()
        self.reads = 0
        self.down = False

    async def since(self, customer_id: str, cut_off: datetime, snapshot: datetime) -> list[Event]:
        assert cut_off == UNTIL < snapshot
        self.reads += 1
        found = [event for event in self.stored if event.customer_id == customer_id]
        self.reading.set()
        await self.gate.wait()
        if self.down:
            raise EventStoreUnavailable("down")
        return found


Live = Callable[..., LiveHistories]


@pytest.fixture
def live(published: tuple[BundleStore, Manifest]) -> Live:
    store, manifest = published
    past, histories = open_histories(store.histories(manifest.version))
    catalog = Catalog.load(store.bundle(manifest.version) / "catalog")

    def make(fake: FakeStore, limit: int = 10) -> LiveHistories:
        return LiveHistories(histories, past, catalog, cast("EventStore", fake), limit)

    return make


def run(test: Callable[[FakeStore], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test(FakeStore())

    asyncio.run(bounded())


def recent(known: Known) -> int:
    """How many events after the cut-off a history holds."""
    return int((known.history.events_E["at"] >= UNTIL.timestamp()).sum())


def test_the_snapshot_comes_with_what_the_store_has_since(live: Live):
    async def test(store: FakeStore) -> None:
        store.stored = [bought("c001")]
        known = await live(store).of("c001")
        past = known.history.events_E
        assert len(past) > 1
        assert recent(known) == 1
        assert past["at"].tolist() == sorted(past["at"].tolist())
        assert not known.degraded

    run(test)


def test_somebody_nobody_has_heard_of_has_an_empty_history(live: Live):
    async def test(store: FakeStore) -> None:
        known = await live(store).of("nobody")
        assert len(known.history.events_E) == 0
        assert known.history.audiences == ()

    run(test)


def test_a_history_in_memory_is_not_read_again_and_grows(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        await histories.of("c001")
        histories.apply([bought("c001"), bought("c002"), bought("c001")])
        assert recent(await histories.of("c001")) == 2
        assert store.reads == 1

    run(test)


def test_the_least_recently_used_leaves_memory(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store, limit=2)
        for customer in ("c001", "c002", "c001", "c003", "c001"):
            await histories.of(customer)
        assert store.reads == 3
        await histories.of("c002")
        assert store.reads == 4

    run(test)


def test_an_event_stored_and_applied_while_its_customer_is_being_read_is_not_lost(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.gate.clear()
        reading = asyncio.create_task(histories.of("c001"))
        await store.reading.wait()
        store.stored.append(event := bought("c001"))
        histories.apply([event])
        store.gate.set()
        assert recent(await reading) == 1
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_each_of_several_readers_sees_the_event_that_overtook_them(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.gate.clear()
        readers = [asyncio.create_task(histories.of("c001")) for _ in range(3)]
        await asyncio.sleep(0)
        assert store.reads == 3
        store.stored.append(event := bought("c001"))
        histories.apply([event])
        store.gate.set()
        assert [recent(await reader) for reader in readers] == [1, 1, 1]
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_an_event_that_was_read_before_it_is_applied_counts_once(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.writing["c001"] += 1
        store.stored.append(event := bought("c001"))  # committed, but its writer has not heard so yet
        assert recent(await histories.of("c001")) == 1
        del store.writing["c001"]
        histories.apply([event])
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_a_history_is_kept_while_others_events_are_being_stored(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.writing["c002"] += 1
        await histories.of("c001")
        await histories.of("c001")
        assert store.reads == 1

    run(test)


def test_an_event_stored_without_being_applied_is_seen_after_rereading(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        await histories.of("c001")
        store.stored.append(bought("c001"))
        histories.reread(["c001", "nobody"])
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_rereading_overtakes_a_read_under_way(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.gate.clear()
        reading = asyncio.create_task(histories.of("c001"))
        await store.reading.wait()
        store.stored.append(bought("c001"))
        histories.reread(["c001"])
        store.gate.set()
        assert recent(await reading) == 1

    run(test)


def test_without_the_store_the_snapshot_answers_and_says_so_and_is_not_kept(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.stored = [bought("c001")]
        store.down = True
        known = await histories.of("c001")
        assert known.degraded
        assert len(known.history.events_E) > 0
        assert recent(known) == 0
        store.down = False
        known = await histories.of("c001")
        assert not known.degraded
        assert recent(known) == 1

    run(test)


def test_without_the_store_a_history_that_another_worker_outdated_answers_and_says_so(live: Live):
    async def test(store: FakeStore) -> None:
        store.changes = Changes(2)
        other = copy(store.changes)
        other.take(1)
        histories = live(store)
        store.stored.append(bought("c001"))
        await histories.of("c001")
        other.add("c001")
        store.down = True
        known = await histories.of("c001")
        assert (known.degraded, recent(known)) == (True, 1)
        store.down = False
        store.stored.append(bought("c001"))
        known = await histories.of("c001")
        assert (known.degraded, recent(known)) == (False, 2)

    run(test)


def test_events_are_applied_after_a_reader_gave_up(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.gate.clear()
        reading = asyncio.create_task(histories.of("c001"))
        await store.reading.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        store.gate.set()
        store.stored.append(event := bought("c001"))
        histories.apply([event])
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_a_late_event_takes_its_place_in_time(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        before: History = (await histories.of("c001")).history
        histories.apply([bought("c001", at=UNTIL - timedelta(days=30))])
        after: History = (await histories.of("c001")).history
        assert len(after.events_E) == len(before.events_E) + 1
        assert after.events_E["at"].tolist() == sorted(after.events_E["at"].tolist())

    run(test)


def test_an_event_becomes_a_record_in_the_catalogues_rows(published: tuple[BundleStore, Manifest]):
    store, manifest = published
    catalog = Catalog.load(store.bundle(manifest.version) / "catalog")
    product = favourite(1)
    whole = Event(
        event_id="e", type="redemption", customer_id="c001", at=UNTIL, product_id=product, offer_id="vips",
        location="south", channel="app", quantity=3, value=2.5,
    )  # fmt: skip
    bare, unknown = bought("c001", None), bought("c001", "sold-elsewhere")
    first, second, third = records([whole, bare, unknown], catalog)
    assert (first["at"], first["type"]) == (UNTIL.timestamp(), EVENT_CODES["redemption"])
    assert catalog.products.ids.id(int(first["product"])) == product
    assert catalog.offers.ids.id(int(first["offer"])) == "vips"
    assert catalog.locations.ids.id(int(first["location"])) == "south"
    assert list(catalog.channels)[first["channel"]] == "app"
    assert (first["quantity"], first["value"]) == (3, 2.5)
    assert [second[name] for name in ("product", "offer", "location", "channel")] == [-1, -1, -1, -1]
    assert (second["quantity"], str(second["value"])) == (1, "nan")
    assert third["product"] == -1
