"""Counts of how often everybody has redeemed each offer until now: the snapshot, and what the store has since.

Letter: O offers of the catalogue.
"""

import asyncio
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue
from embeddings.errors import EventStoreUnavailable
from embeddings.release.bundle import HistoriesManifest
from serving.state.events import EventStore
from serving.state.statements import Span


class Redeemed(NamedTuple):
    """Counts of how often offers were redeemed.

    Attributes:
        times_O: float32, by row of the catalogue.
        degraded: the event store did not answer, so redemptions may be missing.
    """

    times_O: NDArray[np.float32]
    degraded: bool


class LiveRedemptions:
    """Redemptions by everybody in the rows of one catalogue, counted anew whenever a worker has stored some.

    Nothing is added to the counts here: they are what the store says after every redemption that was acknowledged
    before they are asked for. So a second worker, a new release and a start find them like everybody else. Redemptions
    are few beside requests, and requests that come meanwhile wait for the same count.

    Args:
        snapshot_O: how often each offer was redeemed before the cut-off.
        manifest: of the histories that were counted.
        catalogue: whose rows are spoken in.
        store: what it has since.
    """

    def __init__(
        self, snapshot_O: NDArray[np.float32], manifest: HistoriesManifest, catalogue: Catalogue, store: EventStore
    ) -> None:
        self._snapshot_O = snapshot_O
        self._span = Span.of(manifest)
        self._catalogue = catalogue
        self._store = store
        self._counting = asyncio.Lock()
        self._since: dict[str, int] = {}
        self._times_O = snapshot_O
        self._stored: int | None = None  # what had been stored before it was counted last; None before the first time

    def adopt(self, catalogue: Catalogue) -> None:
        """Speak in the rows of a later catalogue from now on."""
        if catalogue.offers is not self._catalogue.offers:
            self._catalogue = catalogue
            self._times_O = self._counted(self._since)

    async def now(self) -> Redeemed:
        """Return counts of all redemptions acknowledged before this call; the last counts if the store is silent."""
        if self._stored == self._store.invalidations.redemptions:
            return Redeemed(self._times_O, degraded=False)
        async with self._counting:
            stored = self._store.invalidations.redemptions
            if self._stored != stored:  # while this call waited, another one may have counted all of it
                try:
                    since = await self._store.redeemed(self._span)
                except EventStoreUnavailable:
                    return Redeemed(self._times_O, degraded=True)
                self._since = since
                self._times_O = self._counted(since)
                self._stored = stored
            return Redeemed(self._times_O, degraded=False)

    def _counted(self, since: dict[str, int]) -> NDArray[np.float32]:
        times_O = np.zeros(len(self._catalogue.offers.ids), np.float32)
        times_O[: len(self._snapshot_O)] = self._snapshot_O
        for offer_id, times in since.items():
            row = self._catalogue.offers.ids.row(offer_id)
            if row is not None:  # an offer of another release says nothing here
                times_O[row] += times
        return times_O
