"""The one mutable cell of the service: which model answers now."""

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from embeddings.bundle import MANIFEST, ModelBundle, open_histories
from embeddings.context import Context
from embeddings.eligibility import Eligibility
from embeddings.encoders import RankerSession
from embeddings.errors import CorruptBundle, OpportuneError
from embeddings.facts import FactsReader
from embeddings.features import Situation, encode
from embeddings.history import Histories, Purchases
from embeddings.offers import OffersReader
from embeddings.profile import Profile, profile_of
from embeddings.sources import ALL, RETRIEVED, Source, SourceName
from embeddings.store import BundleStore
from serving.popular import PopularRankings
from serving.settings import Settings
from serving.state.events import EventStore
from serving.state.live import LiveHistories
from serving.state.redemptions import LiveRedemptions

_WARMED = 0.5
"""How much of the cache is filled at start; the rest is for what requests bring."""

_log = logging.getLogger("opportune.serve")


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle with all that speaks in its rows; requests pin one and keep it to their end.

    Attributes:
        sources: those that are switched on, the most telling first.
        ranker: orders candidates; None if the towers do.
    """

    bundle: ModelBundle
    eligibility: Eligibility
    popular: PopularRankings
    sources: Mapping[SourceName, Source]
    facts: FactsReader
    offers: OffersReader
    ranker: RankerSession | None
    live: LiveHistories
    redemptions: LiveRedemptions
    profiles: WeakKeyDictionary[Purchases, Profile] = field(default_factory=WeakKeyDictionary[Purchases, Profile])

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.manifest.version

    def profile(self, bought: Purchases) -> Profile:
        """Purchases worked out; kept as long as they are."""
        found = self.profiles.get(bought)
        if found is None:
            found = self.profiles[bought] = profile_of(bought, self.bundle.statistics)
        return found


def open_model(settings: Settings, version: str, events: EventStore) -> Model:
    """Open, verify and warm up one version; slow, so not on the event loop.

    Raises:
        CorruptBundle: naming the file that is missing, truncated or altered.
        DeviceUnavailable: the device is not there.
    """
    store = BundleStore(settings.store)
    bundle = ModelBundle.open(store.bundle(version), settings.device, settings.index_cache_bytes)
    manifest, histories = open_histories(store.histories(version))
    for folder, found in (
        (store.bundle(version), bundle.manifest.version),
        (store.histories(version), manifest.version),
    ):
        if found != version:
            raise CorruptBundle(folder / MANIFEST, f"expected version {version}, found {found}")
    live = LiveHistories(histories, manifest, bundle.catalog, events, settings.live_histories)
    nobody = encode([live.nobody], [Situation(-1, -1, 0)], bundle.manifest.history_length)
    customer_1D = bundle.customer_encoder.encode(nobody, bundle.vectors_ND)
    # The first search reads the stored index's pages: a bad one must show now, not in a request.
    bundle.products.search(np.ascontiguousarray(customer_1D), RETRIEVED, [None])
    eligibility = Eligibility(bundle.catalog)
    _warm(bundle, eligibility, histories)
    # What a bundle holds lives as long as it does. Kept out of the collector's sight, it cannot slow a request.
    gc.collect()
    gc.freeze()
    names = ("towers",) if bundle.ranker is None else settings.sources
    return Model(
        bundle,
        eligibility,
        PopularRankings(bundle.catalog),
        {name: source for name, source in ALL.items() if name in names},
        FactsReader(bundle.catalog, bundle.statistics, bundle.vectors_ND),
        OffersReader(bundle.catalog, bundle.statistics),
        bundle.ranker if settings.ranked else None,
        live,
        LiveRedemptions(bundle.statistics.redeemed_O, manifest, bundle.catalog, events),
    )


def _warm(bundle: ModelBundle, eligibility: Eligibility, histories: Histories) -> None:
    """Gather the sets of the contexts seen most, until they fill ``_WARMED`` of the index's cache."""
    channels, locations = list(bundle.catalog.channels), bundle.catalog.locations.ids
    channels_E, locations_E = (histories.events[name].astype(np.int64) for name in ("channel", "location"))
    placed_E = (channels_E >= 0) & (locations_E >= 0)
    contexts_E = (channels_E * len(locations) + locations_E)[placed_E]
    counts = np.bincount(contexts_E, minlength=len(channels) * len(locations))
    moment = int(bundle.manifest.data_cut_off.timestamp())
    cache = bundle.products.cache
    most_first = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    for seen in most_first.tolist():
        if cache.bytes > _WARMED * cache.limit_bytes:
            return
        channel, location = divmod(seen, len(locations))
        context = Context(channels[channel], locations.id(location))
        bundle.products.warm(eligibility.products(context, eligibility.place(context.location), moment))


class BundleSlot:
    """Holds the model that answers, and replaces it when another version is published.

    Attributes:
        current: the model in service.
        refused: the published version that could not be opened, or ``CURRENT`` where it names none, and why; or None.
        swaps: how often the model was replaced.
    """

    def __init__(self, model: Model) -> None:
        self.current = model
        self.refused: tuple[str, str] | None = None
        self.swaps = 0

    async def watch(self, store: BundleStore, open_version: Callable[[str], Model], poll_seconds: float) -> None:
        """Look for another current version, forever; one that cannot be opened leaves the old one in service."""
        while True:
            await asyncio.sleep(poll_seconds)
            await self.look(store, open_version)

    async def look(self, store: BundleStore, open_version: Callable[[str], Model]) -> None:
        """Take the current version if it is another one and can be opened."""
        try:
            version = await asyncio.to_thread(store.current)
            if version == self.current.version:
                self.refused = None
            elif self.refused is None or version != self.refused[0]:
                await self._swap(version, open_version)
        except OpportuneError as error:
            self._refuse("CURRENT", error)
        except Exception as error:  # whatever it is, the next look must come
            _log.error("cannot read the store, still serving %s: %s", self.current.version, error)

    async def _swap(self, version: str, open_version: Callable[[str], Model]) -> None:
        try:
            model = await asyncio.to_thread(open_version, version)
        except Exception as error:  # files that agree with their hashes can still be of any wrong shape
            self._refuse(version, error)
            return
        self.current, self.refused = model, None
        self.swaps += 1
        _log.info("now serving %s", version)

    def _refuse(self, name: str, error: Exception) -> None:
        refused = (name, str(error))
        if refused != self.refused:  # once, not at every look
            _log.error("refused %s, still serving %s: %s", name, self.current.version, error)
        self.refused = refused
