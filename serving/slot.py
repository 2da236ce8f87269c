"""The one mutable cell of the service: which model answers now."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility
from embeddings.closing import Closing
from embeddings.customer.history import Histories, Purchases
from embeddings.customer.tower_input import Situation, encode
from embeddings.errors import CorruptBundle
from embeddings.ranking.features import FeatureReader
from embeddings.ranking.offer_features import OfferFeatureReader
from embeddings.ranking.profile import Profile, profile_of
from embeddings.ranking.redemption import VisitFeatureReader
from embeddings.ranking.sources import ALL, RETRIEVED, Source, SourceName
from embeddings.release.bundle import MANIFEST, ModelBundle, open_histories
from embeddings.release.encoders import RankerSession
from embeddings.release.store import BundleStore, Stamp
from serving.popular import PopularRankings
from serving.settings import Settings
from serving.state.events import EventStore
from serving.state.live import LiveHistories
from serving.state.redemptions import LiveRedemptions

_WARMED = 0.5
"""How much of the cache is filled at start; the rest is for what requests bring."""

_log = logging.getLogger("opportune.serve")

Done = TypeVar("Done")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Model(Closing):
    """A bundle with all that speaks in its rows; requests pin one and keep it to their end.

    Attributes:
        sources: those that are switched on, the most telling first.
        ranker: orders candidates; None if the towers do.
    """

    _kept: ClassVar[str] = "bundle"

    bundle: ModelBundle
    eligibility: Eligibility
    popular: PopularRankings
    sources: Mapping[SourceName, Source]
    features: FeatureReader
    offers: OfferFeatureReader
    visits: VisitFeatureReader
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

    def close(self) -> None:
        """Let go of everything but the version's name; to close again does nothing."""
        self.bundle.close()
        # In full: the dataclass with slots is another class than the one whose methods say super().
        Closing.close(self)


def open_model(settings: Settings, version: str, events: EventStore) -> Model:
    """Open, verify and warm up one version; slow, so not on the event loop.

    A version that fails half-way is closed.

    Raises:
        CorruptBundle: naming the file that is missing, truncated or altered.
        DeviceUnavailable: the device is not there.
    """
    store = BundleStore(settings.store)
    bundle = ModelBundle.open(store.bundle(version), settings.device, settings.index_cache_bytes)
    try:
        return _model(settings, version, events, store, bundle)
    except BaseException:
        bundle.close()
        raise


def _model(settings: Settings, version: str, events: EventStore, store: BundleStore, bundle: ModelBundle) -> Model:
    """Return a bundle with all that speaks in its rows, verified and warmed up."""
    manifest, histories = open_histories(store.histories(version))
    for folder, found in (
        (store.bundle(version), bundle.manifest.version),
        (store.histories(version), manifest.version),
    ):
        if found != version:
            raise CorruptBundle(folder / MANIFEST, f"expected version {version}, found {found}")
    live = LiveHistories(histories, manifest, bundle.catalogue, events, settings.live_histories)
    nobody = encode(
        [live.anonymous], [Situation(-1, -1, 0, bundle.catalogue.context.unknown)], bundle.manifest.history_length
    )
    customer_1D = bundle.customer_encoder.encode(nobody, bundle.vectors_ND)
    # The first search reads the stored index's pages: a bad one must show now, not in a request.
    bundle.products.search(np.ascontiguousarray(customer_1D), RETRIEVED, [None])
    eligibility = Eligibility(bundle.catalogue)
    _warm(bundle, eligibility, histories)
    names = ("towers",) if bundle.ranker is None else settings.sources
    return Model(
        bundle,
        eligibility,
        PopularRankings(bundle.catalogue),
        {name: source for name, source in ALL.items() if name in names},
        FeatureReader(bundle.catalogue, bundle.statistics, bundle.vectors_ND),
        OfferFeatureReader(bundle.catalogue, bundle.statistics),
        VisitFeatureReader(bundle.catalogue.offers),
        bundle.ranker if settings.ranked else None,
        live,
        LiveRedemptions(bundle.statistics.redeemed_O, manifest, bundle.catalogue, events),
    )


def _warm(bundle: ModelBundle, eligibility: Eligibility, histories: Histories) -> None:
    """Gather the sets of the contexts seen most, until they fill ``_WARMED`` of the index's cache."""
    channels, locations = list(bundle.catalogue.channels), bundle.catalogue.locations.ids
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


class Refused(NamedTuple):
    """A published version that could not be opened.

    Attributes:
        reason: why, in words that may be told to anybody.
        stamp: of its files when it was tried.
    """

    version: str
    reason: str
    stamp: Stamp


class BundleSlot:
    """Holds the model that answers, replaces it when another version is published, and closes what was replaced.

    Attributes:
        current: the model in service.
        refused: the published version that could not be opened, or None.
        unreadable: why the store cannot be read, in words for the log; None while it can.
        swaps: how often the model was replaced.
        on_swap: told every version that is taken.
    """

    def __init__(self, model: Model) -> None:
        self.current = model
        self.refused: Refused | None = None
        self.unreadable: str | None = None
        self.swaps = 0
        self.on_swap: Callable[[str], None] = _nobody_asks
        self._pins: Counter[Model] = Counter()
        # One thread for every version: with each further one the allocator sets aside an address space of its own.
        self._thread = ThreadPoolExecutor(1, "releases")
        self._seen: Stamp | None = None

    @contextmanager
    def pinned(self) -> Generator[Model]:
        """Give the model in service to a request that waits on its way, and keep it open until that has ended."""
        model = self.current
        self._pins[model] += 1
        try:
            yield model
        finally:
            self._pins[model] -= 1
            if not self._pins[model]:
                del self._pins[model]
                if model is not self.current:
                    model.close()

    async def watch(self, store: BundleStore, open_version: Callable[[str], Model], poll_seconds: float) -> None:
        """Look for another current version, forever; one that cannot be opened leaves the old one in service."""
        while True:
            await asyncio.sleep(poll_seconds)
            await self.look(store, open_version)

    async def look(self, store: BundleStore, open_version: Callable[[str], Model]) -> None:
        """Take the current version if it is another one and can be opened.

        One that was refused is tried again once its files, or ``CURRENT``, have changed and then stood still from one
        look to the next.
        """
        try:
            version = await self._aside(store.current)
            stamp = await self._aside(store.stamp, version) if version != self.current.version else ()
        except Exception as error:  # whatever it is, the next look must come
            self._note_unreadable(str(error))
            return
        self._note_unreadable(None)
        stands, self._seen = stamp == self._seen, stamp
        if version == self.current.version:
            self.refused = None
        elif self.refused is None or version != self.refused.version or (stands and stamp != self.refused.stamp):
            await self._swap(version, stamp, open_version)

    async def join(self, version: str, store: BundleStore, open_version: Callable[[str], Model]) -> bool:
        """Take the version that other workers serve, or else the current one; False if neither can be opened."""
        if version == self.current.version:
            return True
        await self._swap(version, (), open_version)
        if self.refused is not None:
            await self.look(store, open_version)
        return self.refused is None and self.unreadable is None

    async def _swap(self, version: str, stamp: Stamp, open_version: Callable[[str], Model]) -> None:
        try:
            model = await self._aside(open_version, version)
        except Exception as error:  # files that agree with their hashes can still be of any wrong shape
            self.refused = Refused(version, _told(error), stamp)
            _log.error("refused version %s, still serving %s: %s", version, self.current.version, error)
            return
        replaced, self.current, self.refused = self.current, model, None
        self.swaps += 1
        if replaced not in self._pins:
            replaced.close()
        _log.info("now serving %s", version)
        self.on_swap(version)

    def _aside(self, work: Callable[..., Done], *arguments: str) -> "asyncio.Future[Done]":
        """Do what is slow in a thread, while the event loop goes on."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _note_unreadable(self, problem: str | None) -> None:
        """Log once that the store cannot be read, or can be again."""
        if problem != self.unreadable:
            if problem is None:
                _log.info("the store can be read again")
            else:
                _log.error("cannot read the store, still serving %s: %s", self.current.version, problem)
        self.unreadable = problem


def _told(error: Exception) -> str:
    """Return why a version was refused, without what only the log should say: paths, and words of other libraries."""
    if isinstance(error, CorruptBundle):
        return f"{error.path.name}: {error.problem}"
    return "it could not be opened; the log says why"


def _nobody_asks(_version: str) -> None:
    """Tell nobody: there is one worker."""
