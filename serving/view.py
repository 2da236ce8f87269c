"""The view that a request pins: a release, and all that speaks in its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakKeyDictionary

from embeddings.catalogue.eligibility import Eligibility
from embeddings.closing import Closing
from embeddings.customer.history import Purchases
from embeddings.ranking.features import FeatureReader
from embeddings.ranking.offer_features import OfferFeatureReader
from embeddings.ranking.profile import Profile, profile_of
from embeddings.ranking.redemption import VisitFeatureReader
from embeddings.ranking.sources import Source, SourceName
from embeddings.release.bundle import ModelBundle
from embeddings.release.encoders import RankerSession
from serving.popular import PopularRankings
from serving.state.live import LiveHistories
from serving.state.redemptions import LiveRedemptions


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class View(Closing):
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
        """Return the version of the release."""
        return self.bundle.manifest.version

    def profile(self, bought: Purchases) -> Profile:
        """Return the profile worked out from purchases; it is kept as long as they are."""
        found = self.profiles.get(bought)
        if found is None:
            found = self.profiles[bought] = profile_of(bought, self.bundle.statistics)
        return found

    def close(self) -> None:
        """Let go of everything but the version's name; closing again does nothing."""
        self.bundle.close()
        # In full: the dataclass with slots is another class than the one whose methods say super().
        Closing.close(self)
