"""The use case: one recommendation, from a decoded request to its answer."""

import asyncio
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import force_setattr, replace
from numpy.typing import NDArray

from embeddings.catalogue.context import Context, Id, Identifier, ListedId, Said, ids_as_text, listed_ids
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import History
from embeddings.customer.session import session_of
from embeddings.customer.tower_input import Situation
from embeddings.errors import InvalidInput, Overloaded
from embeddings.index.base import Plan
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.offer_features import OFFER_FEATURES
from embeddings.ranking.sources import MORE, RETRIEVED
from serving.anonymous import AnonymousCache
from serving.batcher import Batcher
from serving.clock import Clock
from serving.details import Include, details_of
from serving.explain import Reason, reasons
from serving.rank import Kind, Ranked, Source, rank_popular
from serving.retrieve import Offered, RankRequest
from serving.slot import BundleSlot, Model

_ID_BYTES, _IDS_AT_ONCE = 16, 256
_LOOKED_UP = 250
"""How many ids at a time; that takes about a quarter of a millisecond."""
_MOST_LARGE = 8
"""How many requests with long ``items`` may be under way: each takes the loop for 10 ms before it waits to be ranked,
and admission does not see those that wait."""
_HIDDEN = RETRIEVED * MORE
"""How many excluded items are ranked and then left out, so that what would come next takes their places. Where more are
excluded, ranking them would cost more than the answer: candidates are sought among the other products."""


_EARLIER = Meta(extra_json_schema={"deprecated": True})
Wanted = Annotated[tuple[ListedId, ...], Meta(min_length=1, max_length=10_000)]


class RecommendRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A recommend call.

    Attributes:
        customer_id: absent for somebody anonymous.
        attributes: what the customer is, by the names that customers' attributes have; a value that no customer had
            before the data cut-off is an unknown one, and an attribute not given stays as it is known.
        placement: the name of the slot to be filled; a label as long as no placements are declared.
        kinds: what to recommend.
        exclude: ids of products or offers not to show; unknown ones are of no effect.
        filter_already_bought: whether only products are wanted that this customer has never bought.
        items: ids of the products that are wanted, and no others; unknown ones are of no effect.
        novel, among: the earlier names of these two.
        explain: whether each item shows what lies behind its score.
        include: what each item shows of what the catalogue holds; nothing but its id unless asked for.
    """

    context: Context
    customer_id: Id | None = None
    attributes: Said = {}
    placement: Identifier | None = None
    kinds: Annotated[tuple[Kind, ...], Meta(min_length=1, max_length=2)] = ("product",)
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    exclude: Annotated[tuple[ListedId, ...], Meta(max_length=1000)] = ()
    filter_already_bought: bool = False
    items: Wanted | None = None
    explain: bool = False
    include: Annotated[tuple[Include, ...], Meta(max_length=3)] = ()
    novel: Annotated[bool, _EARLIER] = False
    among: Annotated[Wanted | None, _EARLIER] = None

    def __post_init__(self) -> None:
        """Make ids that came as JSON integers text, and take what is given by its earlier name."""
        ids_as_text(self, "customer_id")
        if self.exclude:
            force_setattr(self, "exclude", listed_ids("exclude", self.exclude))
        if self.items is not None:
            force_setattr(self, "items", listed_ids("items", self.items))
        if self.among is not None:
            if self.items is not None:
                raise InvalidInput("among", "expected items alone: among is its earlier name")
            force_setattr(self, "items", listed_ids("among", self.among))
        if self.novel:
            force_setattr(self, "filter_already_bought", self.novel)


class Explanation(Struct, frozen=True):
    """What lies behind a score.

    Attributes:
        plan: how the towers' candidates were searched; null where they were not. It decides the time, not the answer.
        features: what the ranker read, by name; empty where it was not asked.
        facts: the same by its earlier name.
    """

    plan: Plan | None
    features: dict[str, float]
    facts: dict[str, float]


class Item(Struct, frozen=True):
    """One recommended product or offer; see ``Details`` for what ``include`` adds."""

    id: str
    kind: Kind
    rank: int
    score: float
    source: Source
    reasons: list[Reason]
    explanation: Explanation | UnsetType = UNSET
    attributes: dict[str, str] | UnsetType = UNSET
    price: float | UnsetType = UNSET
    products: list[str] | UnsetType = UNSET
    products_total: int | UnsetType = UNSET


class Recommendation(Struct, frozen=True):
    """The answer to a recommend call.

    Attributes:
        personalised: whether the customer's own history shaped it.
        fallback: whether a fallback offer is shown because nothing else was possible.
        degraded: whether something was unavailable and the answer may be worse for it.
    """

    recommendation_id: str
    model_version: str
    items: list[Item]
    personalised: bool
    fallback: bool
    degraded: bool


class _Shown(NamedTuple):
    """What is shown, and why each of it is."""

    ranked: list[Ranked]
    why: list[list[Reason]]


class Engine:
    """Answers recommend calls with whatever model is in the slot when they arrive."""

    def __init__(self, slot: BundleSlot, batcher: Batcher[RankRequest, list[Ranked]], clock: Clock) -> None:
        self._slot = slot
        self._batcher = batcher
        self._clock = clock
        self._anonymous = AnonymousCache[_Shown]()
        self._large = 0
        self._ids = _ids()

    async def recommend(self, request: RecommendRequest) -> Recommendation:
        """One recommendation.

        Raises:
            InvalidInput: the context names a channel or location that the catalogue does not know, or an attribute is
                given that no customer has.
            Overloaded: as many requests that name a lot of products are under way as may be.
        """
        large = request.items is not None and self._batcher.too_much(len(request.items))
        if large and self._large >= _MOST_LARGE:
            raise Overloaded(
                f"{self._large} requests that list as many ids in items are under way; send it again later"
            )
        self._large += large
        try:
            with self._slot.pinned() as model:
                return await self._recommend(request, model)
        finally:
            self._large -= large

    async def _recommend(self, request: RecommendRequest, model: Model) -> Recommendation:
        context, eligibility = request.context, model.eligibility
        channel, place = eligibility.channel(context.channel), eligibility.place(context.location)
        situation = Situation(
            channel,
            place.nearest,
            self._clock.moment(context.at),
            model.bundle.catalogue.context.codes(context.attributes),
        )
        known = None if request.customer_id is None else await model.live.of(request.customer_id)
        history = model.live.anonymous if known is None else known.history
        if request.attributes:
            history = model.live.described(history, request.attributes)

        # To somebody who has bought nothing everything is new: the question is the same without it.
        novel = request.filter_already_bought and len(history.purchases.rows_R) > 0
        products = offers = None
        degraded = known is not None and known.degraded
        if "product" in request.kinds:
            products = eligibility.products(context, place, situation.moment)
            named = None if request.items is None else await _rows(request.items, model)
            products = _wanted(products, named, history if novel else None)
        if "offer" in request.kinds:
            redeemed = await model.redemptions.now()
            offers = Offered(
                eligibility.offers(context, place, situation.moment, history.audiences, history.redeemed_R),
                redeemed.times_O,
            )
            degraded |= redeemed.degraded

        excluded = _excluded(request.exclude, model)
        if len(excluded) > _HIDDEN and products is not None:
            gone = [row for kind, row in excluded if kind == "product"]
            products = EligibleSet.derived(products, np.array(gone, np.int64))
            excluded = frozenset(one for one in excluded if one[0] == "offer")
        acted = history.has_interactions
        if acted or model.ranker is not None:
            ask = RankRequest(
                model,
                history,
                situation,
                products,
                offers,
                request.limit,
                excluded,
                place,
                request.explain,
                novel,
                request.items is not None,
            )
            anonymous = history is model.live.anonymous
            shown = await (self._anonymous.of(ask, self._shown) if anonymous else self._shown(ask))
        else:
            eligible = None if offers is None else offers.eligible
            session = session_of(history, situation.moment)
            ranked = rank_popular(model, place, products, eligible, request.limit, excluded, session)
            shown = _Shown(ranked, reasons(ranked, model, history, place, situation.moment))
        return Recommendation(
            recommendation_id=next(self._ids),
            model_version=model.version,
            items=_items(*shown, model, request),
            personalised=acted and any(one.source != "popular" for one in shown.ranked),
            fallback=False,
            degraded=degraded or model.bundle.degraded is not None,
        )

    async def _shown(self, ask: RankRequest) -> _Shown:
        ranked = await self._batcher.submit(ask)
        return _Shown(ranked, reasons(ranked, ask.model, ask.history, ask.place, ask.situation.moment))


def _ids() -> Iterator[str]:
    """Random ids of 128 bits, in hexadecimal.

    The system is asked for many at a time, as each asking costs, and not before the first is needed: a worker that was
    forked before that shares none with others.
    """
    while True:
        many = token_hex(_ID_BYTES * _IDS_AT_ONCE)
        for start in range(0, len(many), 2 * _ID_BYTES):
            yield many[start : start + 2 * _ID_BYTES]


async def _rows(ids: Sequence[str], model: Model) -> NDArray[np.int64]:
    """The rows of those products that the catalogue knows, looked up some at a time; others have their turn between."""
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(ids), _LOOKED_UP):
        if start:
            await asyncio.sleep(0)
        rows = model.bundle.catalogue.products.ids.rows(ids[start : start + _LOOKED_UP])
        found.append(rows[rows >= 0])
    return np.concatenate(found)


def _wanted(eligible: EligibleSet, named: NDArray[np.int64] | None, buyer: History | None) -> EligibleSet:
    """What is left of an eligible set: of the products named, where they are, and not bought by a buyer."""
    if named is not None:
        eligible = eligible.among(named)
    if buyer is not None:
        eligible = EligibleSet.derived(eligible, buyer.purchases.rows_R)
    return eligible


def _excluded(ids: Sequence[str], model: Model) -> frozenset[tuple[str, int]]:
    catalogue = model.bundle.catalogue
    if not ids:
        return frozenset()
    products, offers = catalogue.products.ids.rows(ids).tolist(), catalogue.offers.ids.rows(ids).tolist()
    found = [("product", row) for row in products if row >= 0]
    return frozenset(found + [("offer", row) for row in offers if row >= 0])


def _items(
    ranked: Sequence[Ranked], why: Sequence[list[Reason]], model: Model, request: RecommendRequest
) -> list[Item]:
    catalogue, include = model.bundle.catalogue, request.include
    items = [
        Item(
            (catalogue.products if one.kind == "product" else catalogue.offers).ids.id(one.row),
            one.kind,
            rank,
            one.score,
            one.source,
            reasons_of_one,
            _explanation(one) if request.explain else UNSET,
        )
        for rank, (one, reasons_of_one) in enumerate(zip(ranked, why, strict=True), start=1)
    ]
    if not include:
        return items
    return [
        replace(item, **details_of(catalogue, one.kind, one.row, include)._asdict())
        for item, one in zip(items, ranked, strict=True)
    ]


def _explanation(one: Ranked) -> Explanation:
    names = RANKER_FEATURES if one.kind == "product" else OFFER_FEATURES
    features = {} if one.features is None else dict(zip(names, one.features.tolist(), strict=True))
    return Explanation(one.plan, features, features)
