"""LiveHistories against an event store whose answers the test holds back."""

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from datetime import datetime, timedelta
from typing import cast
from uuid import uuid4

import pytest

from embeddings.catalogue.changes import ProductState
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.snapshot import apply
from embeddings.customer.history import EVENT_CODES, LONGEST_HISTORY, PURCHASE, History
from embeddings.errors import EventStoreUnavailable
from embeddings.release.bundle import Manifest, open_histories
from embeddings.release.store import BundleStore
from serving.state.event import Event, Stored
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from serving.state.live import Known, LiveHistories
from serving.state.recent import Recent
from serving.state.statements import Page, Span
from tests.world import UNTIL, favourite

HOUR = timedelta(hours=1)


def bought(customer: str, product: str | None = "p000", at: datetime = UNTIL + HOUR) -> Event:
    return Event(event_id=uuid4().hex, type="purchase", customer_id=customer, at=at, product_id=product)


class FakeStore:
    """Holds events; a read sees them as they are when it begins, and answers when ``gate`` is open.

    Every event has a transaction of its own, which has ended.
    """

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.invalidations = Invalidations(1)
        self.gate = asyncio.Event()
        self.gate.set()
        self.reading = asyncio.Event()
        self.reads = 0
        self.rows_read = 0
        self.down = False

    def store(self, *events: Event, ahead_of: int = 0) -> list[Stored]:
        """Store events; they lie ahead of the clock where one is given."""
        begin = len(self.stored) + 1
        new = [Stored(event, place, ahead_of) for place, event in enumerate(events, begin)]
        self.stored += new
        return new

    async def page(self, customer_id: str, span: Span, between: tuple[int, int], mark: int, most: int) -> Page:
        assert span.cut_off == UNTIL < span.snapshot
        self.reads += 1
        after, before = max(between[0], mark - 1), between[1]
        rows = [one.row for one in self.stored if one.event.customer_id == customer_id and after < one.seq < before]
        found = Page(len(self.stored) + 1, rows[::-1][:most])
        self.rows_read += len(found.rows)
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
    catalogue = Catalogue.load(store.bundle(manifest.version) / "catalogue")

    def make(fake: FakeStore, limit: int = 10) -> LiveHistories:
        return LiveHistories(histories, past, catalogue, cast("EventStore", fake), limit)

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
        store.store(bought("c001"))
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
        histories.apply(store.store(bought("c001"), bought("c002"), bought("c001")))
        assert recent(await histories.of("c001")) == 2
        assert store.reads == 1

    run(test)


async def with_new_product(histories: LiveHistories) -> None:
    catalogue = histories._catalogue  # pyright: ignore[reportPrivateUsage]
    histories.adopt(apply(catalogue, [ProductState(id="new")]))


def products_of(known: Known) -> list[int]:
    return known.history.events_E["product"][-2:].tolist()


@pytest.mark.parametrize("when", ["before it is read", "in memory", "while it is read", "while it is applied"])
def test_an_event_of_a_product_that_comes_later_counts_once_that_is_there(live: Live, when: str):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        new = store.store(bought("c001", "new"), bought("c001", "p000"))
        if when == "in memory":
            assert products_of(await histories.of("c001"))[0] == -1
        if when == "while it is applied":
            del store.stored[:]
            await histories.of("c001")
            store.stored += new
            histories.apply(new)
        if when == "while it is read":
            store.gate.clear()
            asked = asyncio.create_task(histories.of("c001"))
            await store.reading.wait()
            await with_new_product(histories)
            store.gate.set()
            found = await asked
        else:
            await with_new_product(histories)
            found = await histories.of("c001")
        assert products_of(found) == [122, 0]
        reads = store.reads
        await with_new_product(histories)
        assert products_of(await histories.of("c001")) == [122, 0]
        assert store.reads == reads, "nothing in it was unknown"

    run(test)


def test_without_the_store_a_catalogue_that_changes_costs_no_event_in_memory(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.store(bought("c001", "new"), bought("c001", "p000"))
        assert recent(await histories.of("c001")) == 2
        store.down = True
        await with_new_product(histories)
        known = await histories.of("c001")
        assert known.degraded
        assert products_of(known) == [-1, 0]
        store.down = False
        assert products_of(await histories.of("c001")) == [122, 0]

    run(test)


def test_what_stays_unknown_is_not_read_again(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.store(bought("c001", "never listed"))
        await histories.of("c001")
        await with_new_product(histories)
        assert products_of(await histories.of("c001"))[-1] == -1
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
        histories.apply(store.store(bought("c001")))
        store.gate.set()
        assert recent(await reading) == 1
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_those_who_ask_at_the_same_time_share_a_read_and_see_the_event_that_overtook_it(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.gate.clear()
        readers = [asyncio.create_task(histories.of("c001")) for _ in range(3)]
        await store.reading.wait()
        histories.apply(store.store(bought("c001")))
        store.gate.set()
        assert [recent(await reader) for reader in readers] == [1, 1, 1]
        assert recent(await histories.of("c001")) == 1
        assert store.reads == 1

    run(test)


def test_an_event_that_was_read_before_it_is_applied_counts_once(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        stored = store.store(bought("c001"))  # committed, but its writer has not heard so yet
        assert recent(await histories.of("c001")) == 1
        histories.apply(stored)
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_an_event_stored_without_being_applied_is_seen_after_rereading(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        await histories.of("c001")
        store.store(bought("c001"))
        histories.reread(["c001", "nobody"])
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_rereading_overtakes_a_read_under_way(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.gate.clear()
        reading = asyncio.create_task(histories.of("c001"))
        await store.reading.wait()
        store.store(bought("c001"))
        histories.reread(["c001"])
        store.gate.set()
        assert recent(await reading) == 1

    run(test)


def test_without_the_store_the_snapshot_answers_and_says_so_and_is_not_kept(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.store(bought("c001"))
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
        store.invalidations = Invalidations(2)
        other = copy(store.invalidations)
        other.take(1)
        histories = live(store)
        store.store(bought("c001"))
        await histories.of("c001")
        other.add("c001")
        store.down = True
        known = await histories.of("c001")
        assert (known.degraded, recent(known)) == (True, 1)
        store.down = False
        store.store(bought("c001"))
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
        histories.apply(store.store(bought("c001")))
        assert recent(await histories.of("c001")) == 1

    run(test)


def test_a_late_event_takes_its_place_in_time(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        before: History = (await histories.of("c001")).history
        histories.apply(store.store(bought("c001", at=UNTIL - timedelta(days=30))))
        after: History = (await histories.of("c001")).history
        assert len(after.events_E) == len(before.events_E) + 1
        assert after.events_E["at"].tolist() == sorted(after.events_E["at"].tolist())

    run(test)


def test_an_event_becomes_a_record_in_the_catalogues_rows(published: tuple[BundleStore, Manifest]):
    store, manifest = published
    catalogue = Catalogue.load(store.bundle(manifest.version) / "catalogue")
    product = favourite(1)
    whole = Event(
        event_id="e", type="redemption", customer_id="c001", at=UNTIL, product_id=product, offer_id="vips",
        location="south", channel="app", quantity=3, value=2.5,
    )  # fmt: skip
    bare, unknown = bought("c001", None), bought("c001", "sold-elsewhere")
    rows = [Stored(one, seq, 0).row for seq, one in enumerate((whole, bare, unknown))]
    first, second, third = Recent.of(rows, catalogue).events_E
    assert (first["at"], first["type"]) == (UNTIL.timestamp(), EVENT_CODES["redemption"])
    assert catalogue.products.ids.id(int(first["product"])) == product
    assert catalogue.offers.ids.id(int(first["offer"])) == "vips"
    assert catalogue.locations.ids.id(int(first["location"])) == "south"
    assert list(catalogue.channels)[first["channel"]] == "app"
    assert (first["quantity"], first["value"]) == (3, 2.5)
    assert [second[name] for name in ("product", "offer", "location", "channel")] == [-1, -1, -1, -1]
    assert (second["quantity"], str(second["value"])) == (1, "nan")
    assert third["product"] == -1


# What others stored


def test_what_another_worker_stored_is_read_alone_and_not_all_again(live: Live):
    async def test(store: FakeStore) -> None:
        store.invalidations = Invalidations(2)
        other = copy(store.invalidations)
        other.take(1)
        histories = live(store)
        store.store(*(bought("c001") for _ in range(1_200)))
        assert recent(await histories.of("c001")) == 1_200
        read = store.rows_read
        assert (read, store.reads) == (1_200, 3), "in pages"
        store.store(bought("c001"))
        other.add("c001")
        assert recent(await histories.of("c001")) == 1_201
        assert store.rows_read == read + 1

    run(test)


def test_whoever_stores_much_is_brought_up_to_date_now_and_then(live: Live):
    """Else one event of another worker would have all of it read again."""

    async def test(store: FakeStore) -> None:
        histories = live(store)
        for _ in range(40):
            histories.apply(store.store(*(bought("c001") for _ in range(30))))
            await histories.of("c001")
        assert recent(await histories.of("c001")) == 1_200
        assert store.rows_read <= 1_200
        histories.reread(["c001"])
        read = store.rows_read
        await histories.of("c001")
        assert store.rows_read - read < 600

    run(test)


def test_of_a_history_without_end_the_newest_events_count(live: Live):
    async def test(store: FakeStore) -> None:
        moments = [UNTIL + timedelta(seconds=second) for second in range(LONGEST_HISTORY + 700)]
        store.store(*(bought("c001", at=at) for at in moments))
        histories = live(store)
        expected = [int(at.timestamp()) for at in moments]
        known = await histories.of("c001")
        assert known.history.events_E["at"].tolist() == expected[-LONGEST_HISTORY:]
        assert store.rows_read == LONGEST_HISTORY
        later = UNTIL + timedelta(days=1)
        histories.apply(store.store(bought("c001", at=later)))
        known = await histories.of("c001")
        assert known.history.events_E["at"].tolist() == [*expected, int(later.timestamp())][-LONGEST_HISTORY:]

    run(test)


def test_an_impression_changes_no_history_before_the_next_release(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        before = (await histories.of("c001")).history
        shown = Event(event_id="shown", type="impression", customer_id="c001", at=UNTIL + HOUR, product_id="p000")
        histories.apply(store.store(shown))
        assert (await histories.of("c001")).history is before

    run(test)


def test_what_is_stored_while_pages_are_read_is_read_next_time(live: Live):
    async def test(store: FakeStore) -> None:
        store.invalidations = Invalidations(2)
        other = copy(store.invalidations)
        other.take(1)
        histories = live(store)
        store.store(*(bought("c001") for _ in range(700)))
        store.gate.clear()
        reading = asyncio.create_task(histories.of("c001"))
        await store.reading.wait()
        store.store(bought("c001"))  # after the first page was found, before the second
        store.gate.set()
        assert recent(await reading) == 700
        other.add("c001")
        assert recent(await histories.of("c001")) == 701

    run(test)


# Events ahead of the clock


def test_an_event_ahead_of_the_clock_lies_between_what_came_before_and_after_it(live: Live):
    """Whatever moments the others give, and whether they are applied here or read."""

    async def test(store: FakeStore) -> None:
        histories = live(store)
        now = UNTIL + 2 * HOUR
        await histories.of("early")
        ahead_of = int(now.timestamp())
        for product, at, clock in (
            ("p000", now - timedelta(seconds=40), 0),
            ("p001", now + 20 * HOUR, ahead_of),
            ("p002", now - timedelta(seconds=2), 0),
            ("p003", now + 2 * HOUR, ahead_of + 1),
            ("p004", now + timedelta(seconds=3), 0),
            ("p005", now + 23 * HOUR, ahead_of + 3),
        ):
            histories.apply(store.store(bought("early", product, at), ahead_of=clock))
            await histories.of("early")
        for known in (await histories.of("early"), await live(store).of("early")):
            events_E = known.history.events_E
            catalogue = [f"p{number:03d}" for number in range(6)]
            assert [favourites[row] for row in events_E["product"].tolist()] == catalogue
            assert events_E["at"].tolist() == sorted(events_E["at"].tolist())
            assert events_E["at"][-1] <= ahead_of + 3

    favourites = {number: f"p{number:03d}" for number in range(6)}
    run(test)


def test_an_event_ahead_of_the_clock_that_comes_first_lies_before_what_says_it_is_of_now(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        now = int((UNTIL + HOUR).timestamp())
        histories.apply(store.store(bought("first", "p000", UNTIL + 21 * HOUR), ahead_of=now))
        cart = Event(event_id="cart", type="add_to_cart", customer_id="first", at=UNTIL + HOUR, product_id="p001")
        histories.apply(store.store(cart))
        types = (await histories.of("first")).history.events_E["type"].tolist()
        assert types == [PURCHASE, EVENT_CODES["add_to_cart"]]

    run(test)


def test_after_a_loss_a_history_is_read_anew_and_holds_what_the_store_holds(live: Live):
    async def test(store: FakeStore) -> None:
        histories = live(store)
        store.store(bought("c001"), bought("c001"))
        assert recent(await histories.of("c001")) == 2
        del store.stored[1:]  # as after a return to an earlier backup
        store.store(bought("c001", "p001"))
        store.invalidations.lose()
        known = await histories.of("c001")
        assert recent(known) == 2
        fresh = await live(store).of("c001")
        assert known.history.events_E.tobytes() == fresh.history.events_E.tobytes()

    run(test)
