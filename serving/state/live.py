"""Every customer's history as of this moment: the snapshot, and what has happened since."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from embeddings.bundle import HistoriesManifest
from embeddings.catalog import Catalog
from embeddings.errors import EventStoreUnavailable
from embeddings.history import EVENT, EVENT_CODES, Events, Histories, History
from serving.state.events import Event, EventStore


class Known(NamedTuple):
    """What is known of a customer.

    Attributes:
        degraded: the event store did not answer, so events since the snapshot are missing.
    """

    history: History
    degraded: bool


class Kept(NamedTuple):
    """A history in memory.

    Attributes:
        others: how often other workers had stored events of its customer before it was read.
    """

    history: History
    others: int


class LiveHistories:
    """Histories in the rows of one catalogue, kept in memory while they are used most recently.

    An accepted event is in the very next history asked for, once: events reach the store before they are applied
    here, a history that is being read meanwhile is read again, and one that was read while events of that customer
    were being stored, and may hold them already, is not kept.

    Events that another worker accepted are never applied here. They are counted in ``store.changes`` before they are
    acknowledged, and a history that was read at another count is read again.

    Attributes:
        nobody: the history of somebody anonymous.
    """

    def __init__(
        self,
        snapshot: Histories,
        manifest: HistoriesManifest,
        catalog: Catalog,
        store: EventStore,
        limit: int,
    ) -> None:
        self.nobody = snapshot.of(None)
        self._snapshot = snapshot
        self._manifest = manifest
        self._catalog = catalog
        self._store = store
        self._limit = limit
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._readers: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()  # of customers being read, to notice being overtaken

    async def of(self, customer_id: str) -> Known:
        """A customer's history; an empty one for a customer nobody has heard of."""
        kept = self._kept.get(customer_id)
        if kept is not None and kept.others == self._store.changes.by_others(customer_id):
            self._kept.move_to_end(customer_id)
            return Known(kept.history, degraded=False)
        past = self._snapshot.of(customer_id)
        self._readers[customer_id] += 1
        try:
            while True:
                before, others = self._changes[customer_id], self._store.changes.by_others(customer_id)
                since = await self._store.since(customer_id, self._manifest.data_cut_off, self._manifest.created_at)
                if self._changes[customer_id] == before:
                    break
        except EventStoreUnavailable:
            kept = self._kept.get(customer_id)  # events of other workers may be missing, yet it holds more
            return Known(past if kept is None else kept.history, degraded=True)
        finally:
            self._readers[customer_id] -= 1
            if not self._readers[customer_id]:
                del self._readers[customer_id], self._changes[customer_id]
        history = past.append(records(since, self._catalog))
        if customer_id not in self._store.writing:
            self._keep(customer_id, Kept(history, others))
        return Known(history, degraded=False)

    def described(self, history: History, attributes: Mapping[str, str]) -> History:
        """A history with attributes that a request gives; InvalidInput names one that no customer has."""
        return self._snapshot.described(history, attributes)

    def apply(self, events: Iterable[Event]) -> None:
        """Add stored events to the histories in memory; others will be read from the store when asked for."""
        by_customer: dict[str, list[Event]] = {}
        for event in events:
            by_customer.setdefault(event.customer_id, []).append(event)
        for customer_id, theirs in by_customer.items():
            self._overtake(customer_id)
            kept = self._kept.get(customer_id)
            if kept is not None:
                grown = kept.history.append(records(theirs, self._catalog))
                self._keep(customer_id, kept._replace(history=grown))

    def reread(self, customer_ids: Iterable[str]) -> None:
        """Have histories read from the store when next asked for: it holds events that were not applied here."""
        for customer_id in customer_ids:
            self._overtake(customer_id)
            self._kept.pop(customer_id, None)

    def _overtake(self, customer_id: str) -> None:
        if customer_id in self._readers:
            self._changes[customer_id] += 1

    def _keep(self, customer_id: str, kept: Kept) -> None:
        self._kept[customer_id] = kept
        self._kept.move_to_end(customer_id)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)


def records(events: Iterable[Event], catalog: Catalog) -> Events:
    """Events as records in a catalogue's rows; what the catalogue does not know becomes -1."""
    return np.array(
        [
            (
                int(event.at.timestamp()),
                _row(catalog.products.ids.row(event.product_id) if event.product_id is not None else None),
                _row(catalog.offers.ids.row(event.offer_id) if event.offer_id is not None else None),
                _row(catalog.locations.ids.row(event.location) if event.location is not None else None),
                event.quantity,
                np.nan if event.value is None else event.value,
                EVENT_CODES[event.type],
                _row(catalog.channel_code(event.channel) if event.channel is not None else None),
            )
            for event in events
        ],
        dtype=EVENT,
    )


def _row(found: int | None) -> int:
    return -1 if found is None else found
