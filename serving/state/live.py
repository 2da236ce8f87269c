"""Every customer's history as of this moment: the snapshot, and what has happened since."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakValueDictionary

from embeddings.catalogue.changes import CustomerState
from embeddings.catalogue.columns import Catalogue
from embeddings.customer.history import LONGEST_HISTORY, Histories, History
from embeddings.errors import EventStoreUnavailable
from embeddings.release.bundle import HistoriesManifest
from serving.state.event import Row, Stored
from serving.state.events import EventStore
from serving.state.recent import Recent
from serving.state.statements import Span

_PAGE = 500
"""So many events are read and worked into records at once: a ms or two, in which nobody else is answered."""

_LAST_SEQ = 2**63 - 1
_OUTDATED = -1


class Known(NamedTuple):
    """A customer's history, as far as it is known.

    Attributes:
        degraded: the event store did not answer, so events since the snapshot may be missing.
    """

    history: History
    degraded: bool


@dataclass(eq=False, slots=True)
class _Kept:
    """The state of one customer in memory.

    Attributes:
        recent: the events since the snapshot, and the history that they make.
        mark: the store has been read up to this transaction.
        others: how often other workers and servers had stored events of the customer before it was read; ``_OUTDATED``
            where the store holds more for another reason.
        losses: how often the database had been lost before it was read.
        told: what the database said of the customer then.
        applied: further events that this worker has stored, to be worked in when the history is asked for.
        unread: how many of them there have been since the store was read.
        whole: whether all of the events are to be read again, as the catalogue knows more of them by now.
    """

    recent: Recent
    history: History
    mark: int
    others: int
    losses: int
    told: CustomerState | None
    applied: list[Row] = field(default_factory=list[Row])
    unread: int = 0
    whole: bool = False


@dataclass(eq=False)
class _Reading:
    """A read under way, and what happened meanwhile."""

    applied: list[Row] = field(default_factory=list[Row])
    outdated: bool = False


class LiveHistories:
    """Histories in the rows of one catalogue, kept in memory while they are used most recently.

    An accepted event is in the very next history asked for, once. However it came into memory, it is known by its place
    in the order of arrival, and a history depends on nothing but the events that make it. So the events that this
    worker stored are applied as they come, also while the store is being read.

    Events that another worker accepted are never applied here. They are counted in ``store.invalidations`` before they
    are acknowledged, and those of other servers soon after. A history that was read at another count is brought up to
    date: only the events that later transactions have brought are read from the store, the newest first, in pages. One
    that was read before the database was lost is read anew: it may hold what the database does not any more.

    The newest ``LONGEST_HISTORY`` of the events since the snapshot count, and as many of both together.

    Attributes:
        anonymous: the history of an anonymous customer.
    """

    def __init__(
        self,
        snapshot: Histories,
        manifest: HistoriesManifest,
        catalogue: Catalogue,
        store: EventStore,
        limit: int,
    ) -> None:
        self.anonymous = snapshot.of(None)
        self._snapshot = snapshot
        self._span = Span.of(manifest)
        self._catalogue = catalogue
        self._audiences = {name: code for code, name in enumerate(catalogue.audiences)}
        self._store = store
        self._limit = limit
        self._nothing = Recent.of([], catalogue)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._reading: dict[str, _Reading] = {}
        self._waiting: set[str] = set()  # customers in memory with events of what the catalogue does not know
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, customer_id: str) -> Known:
        """Return a customer's history; an empty one for a customer who is unknown."""
        kept = self._current(customer_id)
        if kept is not None:
            return Known(kept.history, degraded=False)
        turn = self._turns.setdefault(customer_id, asyncio.Lock())
        async with turn:  # those who ask for one history at the same time read it once
            kept = self._current(customer_id)
            if kept is not None:
                return Known(kept.history, degraded=False)
            try:
                while (kept := await self._read(customer_id)).others == _OUTDATED:
                    pass
                return Known(kept.history, degraded=False)
            except EventStoreUnavailable:
                kept = self._kept.get(customer_id)  # events of other workers may be missing, yet it holds more
                return Known(self._past(customer_id) if kept is None else kept.history, degraded=True)

    def adopt(self, catalogue: Catalogue) -> None:
        """Speak in the rows of a later catalogue from now on; read histories again of which it knows more.

        Until they have been read, the history in memory is what there is without the store.
        """
        new = _new_ids(self._catalogue, catalogue)
        audiences = set(catalogue.audiences).difference(self._catalogue.audiences)
        self._catalogue = catalogue
        self._audiences = {name: code for code, name in enumerate(catalogue.audiences)}
        if audiences:  # of offers that came later: who belongs to them is known by now
            for kept in self._kept.values():
                if kept.told is not None and not audiences.isdisjoint(kept.told.audiences):
                    kept.history = self._told(kept.history, kept.told)
        if not new:
            return
        for customer_id in list(self._waiting):
            kept = self._kept.get(customer_id)
            if kept is None:
                self._waiting.discard(customer_id)
            elif not kept.recent.unknown.isdisjoint(new):
                kept.others, kept.whole = _OUTDATED, True

    def described(self, history: History, attributes: Mapping[str, str]) -> History:
        """Return a history with attributes that a request gives; raise InvalidInput naming one that no customer has."""
        return self._snapshot.described(history, attributes)

    def apply(self, stored: Iterable[Stored]) -> None:
        """Add stored events to the histories in memory; others will be read from the store when asked for."""
        for one in stored:
            if one.event.type == "impression":  # it counts with the next release, as in training
                continue
            reading = self._reading.get(one.event.customer_id)
            if reading is not None:
                reading.applied.append(one.row)
            kept = self._kept.get(one.event.customer_id)
            if kept is not None:
                kept.applied.append(one.row)
                kept.unread += 1
                if len(kept.applied) >= LONGEST_HISTORY:
                    self._work_in(one.event.customer_id, kept)

    def reread(self, customer_ids: Iterable[str]) -> None:
        """Mark histories to be read again when next asked for: the store holds what was not applied here.

        That may be events, or something else that is known of the customer now.
        """
        for customer_id in customer_ids:
            reading = self._reading.get(customer_id)
            if reading is not None:
                reading.outdated = True
            kept = self._kept.get(customer_id)
            if kept is not None:
                kept.others = _OUTDATED

    def _current(self, customer_id: str) -> _Kept | None:
        """Return a customer's state, with the applied events worked in; None if the store may hold more events."""
        kept = self._kept.get(customer_id)
        if kept is None:
            return None
        if kept.applied:
            self._work_in(customer_id, kept)
        self._kept.move_to_end(customer_id)
        # Whoever stores much is read now and then, so that there is never much to be read.
        up_to_date = kept.others == self._store.invalidations.by_others(customer_id) and kept.unread < _PAGE
        return kept if up_to_date else None

    def _past(self, customer_id: str) -> History:
        return self._snapshot.of(customer_id).newest(LONGEST_HISTORY)

    def _told(self, history: History, told: CustomerState) -> History:
        """Return a history with what the database says of its customer, which is more than the snapshot knows."""
        audiences = tuple(sorted(self._audiences[name] for name in told.audiences if name in self._audiences))
        return self._snapshot.told(history, told.attributes, audiences)

    def _work_in(self, customer_id: str, kept: _Kept) -> None:
        """Make the events that were applied part of the history."""
        recent = kept.recent.merged([Recent.of(kept.applied, self._catalogue)])
        kept.applied = []
        kept.history = self._history(customer_id, recent, kept, kept.told)
        kept.recent = recent

    def _history(self, customer_id: str, recent: Recent, kept: _Kept | None, told: CustomerState | None) -> History:
        """Return the snapshot with the events since; extend the history in memory where that gives the same."""
        more = None if kept is None else recent.beyond(kept.recent)
        if kept is not None and more is not None and len(kept.history.events_E) + len(more) <= LONGEST_HISTORY:
            history = kept.history.append(more.in_time())
        else:
            history = self._past(customer_id).append(recent.in_time()).newest(LONGEST_HISTORY)
        return history if told is None else self._told(history, told)

    async def _read(self, customer_id: str) -> _Kept:
        """Bring a customer's state up to date from the store; at most one read at a time for each customer."""
        kept = self._kept.get(customer_id)
        losses = self._store.invalidations.losses
        grown = None if kept is None or kept.whole or kept.losses != losses else kept
        held = self._nothing if grown is None else grown.recent
        since = 0 if grown is None else grown.mark
        others = self._store.invalidations.by_others(customer_id)
        catalogue = self._catalogue
        reading = self._reading[customer_id] = _Reading()
        pages: list[Recent] = []
        mark, before, told = 0, _LAST_SEQ, None
        try:
            while sum(map(len, pages)) < LONGEST_HISTORY:
                between = held.floor, before
                page = await self._store.page(customer_id, self._span, between, since, _PAGE)
                if not pages:  # what commits while further pages are read is read next time
                    mark, told = page.mark, page.told
                pages.append(Recent.of(page.rows, catalogue))
                if len(page.rows) < _PAGE:
                    break
                before = page.rows[-1].seq
        finally:
            del self._reading[customer_id]
        recent = held.merged([*pages, Recent.of(reading.applied, catalogue)])
        history = self._history(customer_id, recent, grown, told)
        fresh = _Kept(recent, history, mark, _OUTDATED if reading.outdated else others, losses, told)
        if not recent.unknown.isdisjoint(_new_ids(catalogue, self._catalogue)):  # which came meanwhile
            fresh.others, fresh.whole = _OUTDATED, True
        if recent.unknown:
            self._waiting.add(customer_id)
        self._kept[customer_id] = fresh
        self._kept.move_to_end(customer_id)
        if len(self._kept) > self._limit:
            forgotten, _ = self._kept.popitem(last=False)
            self._waiting.discard(forgotten)
        return fresh


def _new_ids(before: Catalogue, now: Catalogue) -> frozenset[tuple[str, str]]:
    """Return the kinds and ids that a later catalogue holds beside those of an earlier one."""
    if before is now:
        return frozenset()
    pairs = (
        ("product", before.products.ids, now.products.ids),
        ("offer", before.offers.ids, now.offers.ids),
        ("location", before.locations.ids, now.locations.ids),
    )
    return frozenset((kind, one) for kind, old, new in pairs for one in new.ids(range(len(old), len(new))))
