"""The view that a request pins: a release and a catalogue.

A release is what training published; its view stays when another is published. Its catalogue changes meanwhile, one
immutable snapshot after the other. Rows are handles of one release: its snapshots only add some.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self
from weakref import WeakKeyDictionary

import numpy as np

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Eligibility
from embeddings.closing import Closing
from embeddings.customer.history import Purchases
from embeddings.ranking.offer_features import OfferFeatureReader
from embeddings.ranking.profile import Profile, profile_of
from embeddings.ranking.redemption import VisitFeatureReader
from embeddings.ranking.sources import Source, SourceName
from embeddings.release.bundle import ModelBundle
from embeddings.release.encoders import RankerSessions
from embeddings.release.rows import Rows
from serving.popular import PopularRankings
from serving.state.live import LiveHistories
from serving.state.redemptions import LiveRedemptions


@dataclass(slots=True, eq=False, weakref_slot=True)
class Release(Closing):
    """A bundle, and what all views of it share.

    Attributes:
        published: finds what a context allows in the catalogue that the bundle was published with.
        sources: those that are switched on, the most telling first.
        rankers: order candidates; None if the towers do.
        newest: the rows of the newest catalogue that was published. They serve requests that have pinned an earlier
            one, too, whose customers' histories may know later products by now.
    """

    _kept: ClassVar[str] = "bundle"

    bundle: ModelBundle
    published: Eligibility
    popular: PopularRankings
    sources: Mapping[SourceName, Source]
    rankers: RankerSessions | None
    live: LiveHistories
    redemptions: LiveRedemptions
    newest: Rows
    profiles: WeakKeyDictionary[Purchases, Profile] = field(default_factory=WeakKeyDictionary[Purchases, Profile])

    @property
    def version(self) -> str:
        """Return the version of the release."""
        return self.bundle.manifest.version

    def adopt(self, catalogue: Catalogue, rows: Rows) -> None:
        """Speak in the rows of a later catalogue from now on."""
        if not np.array_equal(self.newest.codes_MA, rows.codes_MA[: len(self.newest.codes_MA)]):
            self.profiles.clear()  # which hold purchases by group, of products of another group now
        self.newest = rows
        self.live.adopt(catalogue)
        self.redemptions.adopt(catalogue)

    def profile(self, bought: Purchases) -> Profile:
        """Return the profile worked out from purchases; it is kept as long as they are."""
        found = self.profiles.get(bought)
        if found is None:
            found = self.profiles[bought] = profile_of(bought, self.newest.statistics)
        return found

    def close(self) -> None:
        """Let go of everything but the version's name; closing again does nothing."""
        self.bundle.close()
        # In full: the dataclass with slots is another class than the one whose methods say super().
        Closing.close(self)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class View(Closing):
    """A release with one of its catalogues; requests pin one and keep it to their end.

    Attributes:
        number: how many catalogues of the release came before this one.
        log: the log of changes that it has followed; empty if none.
        seq: the newest change of it that it has.
        rows: of this catalogue. Requests read the newest of the release, which are never older.
    """

    _kept: ClassVar[str] = "release"

    release: Release
    number: int
    log: str
    seq: int
    catalogue: Catalogue
    eligibility: Eligibility
    offers: OfferFeatureReader
    visits: VisitFeatureReader
    rows: Rows

    @classmethod
    def of(cls, release: Release) -> Self:
        """Return the view of a release with the catalogue that it was published with."""
        catalogue, statistics = release.bundle.catalogue, release.newest.statistics
        return cls(
            release,
            0,
            release.bundle.manifest.catalogue_log,
            release.bundle.manifest.catalogue_seq,
            catalogue,
            release.published,
            OfferFeatureReader(catalogue, statistics),
            VisitFeatureReader(catalogue.offers),
            release.newest,
        )

    @property
    def version(self) -> str:
        """Return the version of the release."""
        return self.release.version

    def following(self, catalogue: Catalogue, seq: int, log: str | None = None) -> "View":
        """Return the view of the same release with a later catalogue; slow, so not on the event loop.

        Args:
            catalogue: the same, or one that came of it by changes.
            seq: the newest change that it has.
            log: of which log; the same if None.

        Raises:
            ValueError: the catalogue did not come of this view's by changes: its rows are others.
        """
        number, log = self.number + 1, self.log if log is None else log
        if catalogue is self.catalogue:
            return replace(self, number=number, log=log, seq=seq)
        release = self.release
        for name in ("products", "locations", "offers"):
            if not getattr(catalogue, name).ids.extends(getattr(self.catalogue, name).ids):
                raise ValueError(f"expected a catalogue that came of this one by changes; its {name} have other rows")
        rows = self.rows.following(release.bundle, catalogue)
        offers, visits, held = self.offers, self.visits, len(release.bundle.catalogue.products.ids)
        # What the release was published with keeps its statistics, so they change of later products alone.
        if catalogue.offers is not self.catalogue.offers or bool((catalogue.offers.products.values >= held).any()):
            offers = OfferFeatureReader(catalogue, rows.statistics)
        if catalogue.offers is not self.catalogue.offers:
            visits = VisitFeatureReader(catalogue.offers)
        eligibility = Eligibility(catalogue, release.published)
        return View(release, number, log, seq, catalogue, eligibility, offers, visits, rows)

    def close(self) -> None:
        """Close the release, and let go of all else."""
        self.release.close()
        Closing.close(self)
