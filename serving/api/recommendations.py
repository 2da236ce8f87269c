"""``GET /v1/recommendations/{id}``: what was shown, and to whom."""

from datetime import datetime

import msgspec
from litestar import get
from litestar.datastructures import State
from litestar.params import FromPath
from msgspec import Struct

from embeddings.catalogue.context import Context, GeoPoint
from serving.api.problems import UnknownResource
from serving.ranked import Kind
from serving.state.decisions import DecisionStore


class ShownItem(Struct, frozen=True):
    """One product or offer as it was shown.

    Attributes:
        source: what proposed it.
        propensity: the probability with which it was shown at this place: 1 where nothing was left to chance.
    """

    id: str
    kind: Kind
    rank: int
    score: float
    source: str
    propensity: float


class Shown(Struct, frozen=True):
    """What one answer showed, and to whom.

    Attributes:
        at: when it was given.
        customer_id: null for somebody anonymous.
        context: that of the request; ``at`` is the moment that it asked about, and of ``attributes`` it holds the
            values that the release knew.
        placement: that the request named; null for none.
        share: of how many answers of its kind one was stored, as a probability.
    """

    recommendation_id: str
    at: datetime
    customer_id: str | None
    context: Context
    placement: str | None
    model_version: str
    catalogue_seq: int
    personalised: bool
    degraded: bool
    share: float
    items: list[ShownItem]


@get("/v1/recommendations/{recommendation_id:str}", summary="What a recommendation has shown")
async def recommendation(recommendation_id: FromPath[str], state: State) -> Shown:
    """The items of an earlier answer with their versions and context, whichever server gave it.

    404 if it was not stored, or is not kept any more.
    """
    decisions: DecisionStore = state.decisions
    found = await decisions.find(recommendation_id)
    if found is None:
        raise UnknownResource(f"no recommendation {recommendation_id[:64]!r} is kept")
    said = {} if found["context"] is None else msgspec.json.decode(found["context"], type=dict[str, str])
    location = found["location"] if found["place"] is None else GeoPoint(*found["place"])
    propensities = found["propensities"] or [1.0] * len(found["items"])
    shown = zip(found["items"], found["kinds"], found["scores"], found["sources"], propensities, strict=True)
    return Shown(
        recommendation_id,
        found["at"],
        found["customer_id"],
        Context(found["channel"], location, found["asked_at"], said),
        found["placement"],
        found["version"],
        found["catalogue_seq"],
        found["personalised"],
        found["degraded"],
        found["share"],
        [
            ShownItem(id_, kind, rank, score, source, propensity)
            for rank, (id_, kind, score, source, propensity) in enumerate(shown, start=1)
        ],
    )
