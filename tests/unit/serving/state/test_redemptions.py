"""LiveRedemptions against an event store whose answers the test holds back."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import numpy as np

from embeddings.catalogue.columns import Catalogue
from embeddings.errors import EventStoreUnavailable
from embeddings.release.bundle import HistoriesManifest
from embeddings.vocabulary import Vocabulary
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from serving.state.redemptions import LiveRedemptions
from serving.state.statements import Span

CUT_OFF, MADE = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 2, tzinfo=UTC)
MANIFEST = HistoriesManifest(version="first", created_at=MADE, data_cut_off=CUT_OFF, files={})


def catalogue(*offers: str) -> Catalogue:
    return cast("Catalogue", SimpleNamespace(offers=SimpleNamespace(ids=Vocabulary.of(list(offers)))))


class FakeStore:
    """Counts what is redeemed; a count sees it as it is when it begins, and answers when ``gate`` is open."""

    def __init__(self) -> None:
        self.stored: Counter[str] = Counter()
        self.invalidations = Invalidations(2)
        self.gate = asyncio.Event()
        self.gate.set()
        self.counting = asyncio.Event()
        self.counts = 0
        self.down = False

    def redeem(self, offer: str) -> None:
        """As any worker's store does before it acknowledges the event."""
        self.stored[offer] += 1
        self.invalidations.add_redemptions()

    async def redeemed(self, span: Span) -> dict[str, int]:
        assert span == Span(CUT_OFF, MADE)
        self.counts += 1
        found = dict(self.stored)
        self.counting.set()
        await self.gate.wait()
        if self.down:
            raise EventStoreUnavailable("down")
        return found


def opened(store: FakeStore, *offers: str) -> LiveRedemptions:
    """With one redemption before the cut-off of the first offer, two of the second, and so on."""
    snapshot_O = np.arange(1, len(offers) + 1, dtype=np.float32)
    snapshot_O.flags.writeable = False
    return LiveRedemptions(snapshot_O, MANIFEST, catalogue(*offers), cast("EventStore", store))


async def times(redemptions: LiveRedemptions) -> list[float]:
    redeemed = await redemptions.now()
    assert not redeemed.degraded
    return redeemed.times_O.tolist()


def run(test: Callable[[FakeStore], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test(FakeStore())

    asyncio.run(bounded())


def test_the_snapshot_comes_with_what_the_store_has_since_in_the_rows_of_this_catalogue():
    async def test(store: FakeStore) -> None:
        for offer in ("b", "b", "a", "of another release"):
            store.redeem(offer)
        assert await times(opened(store, "a", "b", "c")) == [2, 4, 3]
        assert await times(opened(store, "c", "b")) == [1, 4]

    run(test)


def test_offers_that_come_later_are_counted_without_another_look_at_the_store():
    async def test(store: FakeStore) -> None:
        redemptions = opened(store, "a", "b")
        for offer in ("new", "a", "new"):
            store.redeem(offer)
        assert await times(redemptions) == [2, 2]
        redemptions.adopt(catalogue("a", "b", "new"))
        assert await times(redemptions) == [2, 2, 2]
        assert store.counts == 1

    run(test)


def test_it_is_counted_again_only_when_something_was_redeemed():
    async def test(store: FakeStore) -> None:
        redemptions = opened(store, "a", "b")
        for expected in ([1, 2], [2, 2], [3, 2]):
            assert await times(redemptions) == expected
            assert await times(redemptions) == expected
            store.redeem("a")
        assert store.counts == 3

    run(test)


def test_a_redemption_that_overtakes_a_count_is_in_the_next_and_waiters_share_one():
    async def test(store: FakeStore) -> None:
        redemptions = opened(store, "a")
        store.gate.clear()
        first = asyncio.create_task(times(redemptions))
        await store.counting.wait()
        store.redeem("a")
        later = [asyncio.create_task(times(redemptions)) for _ in range(5)]
        await asyncio.sleep(0)
        store.gate.set()
        assert await first == [1]
        assert await asyncio.gather(*later) == [[2]] * 5
        assert store.counts == 2

    run(test)


def test_without_the_store_the_last_count_answers_and_says_so():
    async def test(store: FakeStore) -> None:
        redemptions = opened(store, "a")
        store.down = True
        redeemed = await redemptions.now()
        assert (redeemed.times_O.tolist(), redeemed.degraded) == ([1], True)
        store.down = False
        store.redeem("a")
        assert await times(redemptions) == [2]
        store.down = True
        assert not (await redemptions.now()).degraded, "nothing was redeemed since"
        store.redeem("a")
        redeemed = await redemptions.now()
        assert (redeemed.times_O.tolist(), redeemed.degraded) == ([2], True)
        store.down = False
        assert await times(redemptions) == [3]

    run(test)
