"""Opens a release as a view: verifies it, and warms it up."""

from pathlib import Path

import numpy as np

from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility
from embeddings.customer.history import Events, Histories
from embeddings.customer.tower_input import Situation, encode
from embeddings.errors import CorruptBundle
from embeddings.ranking.sources import ALL, RETRIEVED
from embeddings.release.bundle import MANIFEST, ModelBundle, open_histories
from embeddings.release.rows import Rows
from embeddings.release.store import BundleStore
from serving.popular import PopularRankings
from serving.settings import Settings
from serving.state.events import EventStore
from serving.state.live import LiveHistories
from serving.state.redemptions import LiveRedemptions
from serving.view import Release, View

_BLOCKS, _BLOCK = 32, 65_536
"""What tells which contexts are seen most. Few and large, as the system maps more than it is asked for."""

_WARMED = 0.5
"""How much of the cache is filled at start; the rest is for what requests bring."""


def open_view(settings: Settings, version: str, events: EventStore) -> View:
    """Open, verify and warm up one version, and return its view; slow, so not on the event loop.

    A version that fails half-way is closed.

    Raises:
        CorruptBundle: naming the file that is missing, truncated or altered.
        DeviceUnavailable: the device is not there.
    """
    store = BundleStore(settings.store)
    bundle = ModelBundle.open(store.bundle(version), settings.device, settings.index_cache_bytes)
    try:
        manifest, histories = open_histories(store.histories(version))
        _check_version(version, store.bundle(version), bundle.manifest.version)
        _check_version(version, store.histories(version), manifest.version)
        live = LiveHistories(histories, manifest, bundle.catalogue, events, settings.live_histories)
        redemptions = LiveRedemptions(bundle.statistics.redeemed_O, manifest, bundle.catalogue, events)
        view = View.of(_release(settings, bundle, live, redemptions))
        _search_once(view)
        _warm(view, histories)
    except BaseException:
        bundle.close()
        raise
    return view


def _check_version(version: str, folder: Path, found: str) -> None:
    if found != version:
        raise CorruptBundle(folder / MANIFEST, f"expected version {version}, found {found}")


def _release(settings: Settings, bundle: ModelBundle, live: LiveHistories, redemptions: LiveRedemptions) -> Release:
    """Return a bundle with all that its views share."""
    names = ("towers",) if bundle.rankers is None else settings.sources
    return Release(
        bundle=bundle,
        published=Eligibility(bundle.catalogue),
        popular=PopularRankings(),
        sources={name: source for name, source in ALL.items() if name in names},
        rankers=bundle.rankers if settings.ranked else None,
        live=live,
        redemptions=redemptions,
        newest=Rows.of(bundle),
    )


def _search_once(view: View) -> None:
    """Search for an anonymous customer: the first search reads the stored index, and a bad one must show now."""
    bundle = view.release.bundle
    situation = Situation(-1, -1, 0, bundle.catalogue.context.unknown)
    anonymous = encode([view.release.live.anonymous], [situation], bundle.manifest.history_length)
    customer_1D = bundle.customer_encoder.encode(anonymous, bundle.vectors_ND)
    bundle.products.search(np.ascontiguousarray(customer_1D), RETRIEVED, [None])


def _some(events: Events) -> Events:
    """Return all events, or blocks of some in even distances if they are many: what is read stays in memory."""
    if len(events) <= _BLOCKS * _BLOCK:
        return events
    begins = np.linspace(0, len(events) - _BLOCK, _BLOCKS).astype(np.int64)
    return np.concatenate([events[begin : begin + _BLOCK] for begin in begins.tolist()])


def _warm(view: View, histories: Histories) -> None:
    """Gather the sets of the contexts seen most, until they fill ``_WARMED`` of the index's cache."""
    bundle, eligibility = view.release.bundle, view.eligibility
    channels, locations = list(bundle.catalogue.channels), bundle.catalogue.locations.ids
    events = _some(histories.events)
    channels_E, locations_E = (events[name].astype(np.int64) for name in ("channel", "location"))
    placed_E = (channels_E >= 0) & (locations_E >= 0)
    # No request can name a location that is closed by now.
    placed_E[placed_E] = ~bundle.catalogue.locations.withdrawn_M[locations_E[placed_E]]
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
