"""The use case: one recommendation, from a decoded request to its answer."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import UNSET
from msgspec.structs import replace
from numpy.typing import NDArray

from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import History
from embeddings.customer.session import session_of
from embeddings.customer.tower_input import Situation
from embeddings.errors import CatalogueBehind, Overloaded
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.offer_features import OFFER_FEATURES
from embeddings.ranking.sources import MORE, RETRIEVED
from serving.anonymous import AnonymousCache
from serving.batcher import Batcher
from serving.clock import Clock
from serving.details import details_of
from serving.explain import Reason, reasons
from serving.rank_popular import rank_popular
from serving.ranked import Ranked
from serving.recommendation import Explanation, Item, Recommendation, RecommendRequest
from serving.retrieve import Offered, RankRequest
from serving.slot import ViewSlot
from serving.state.decision import Decision, new_ids
from serving.state.decisions import DecisionStore
from serving.view import View

_LOOKED_UP = 250
"""How many ids at a time; that takes about a quarter of a millisecond."""
_MOST_LARGE = 8
"""How many requests with long ``items`` may be under way: each takes the loop for 10 ms before it waits to be ranked,
and admission does not see those that wait."""
_HIDDEN = RETRIEVED * MORE
"""How many excluded items are ranked and then left out, so that what would come next takes their places. Where more are
excluded, ranking them would cost more than the answer: candidates are sought among the other products."""


class _Shown(NamedTuple):
    """The items that are shown, and the reasons for each of them."""

    ranked: list[Ranked]
    why: list[list[Reason]]


class Engine:
    """Answers recommend calls with the view that is in the slot when they arrive."""

    def __init__(
        self,
        slot: ViewSlot,
        batcher: Batcher[RankRequest, list[Ranked]],
        clock: Clock,
        changes_are_late: Callable[[], bool],
        decisions: DecisionStore,
    ) -> None:
        """Take what answers are made with.

        Args:
            slot: holds the view that answers.
            batcher: ranks.
            clock: tells the moment of requests that name none.
            changes_are_late: whether the view may lack changes of the catalogue that it should have.
            decisions: keeps what was shown.
        """
        self._slot = slot
        self._batcher = batcher
        self._clock = clock
        self._changes_are_late = changes_are_late
        self._decisions = decisions
        self._anonymous = AnonymousCache[_Shown]()
        self._large = 0
        self._ids = new_ids()

    async def recommend(self, request: RecommendRequest) -> Recommendation:
        """Return one recommendation.

        Raises:
            InvalidInput: the context names a channel or location that the catalogue does not know, or an attribute is
                given that no customer has.
            CatalogueBehind: the view lacks the change that the request wants to be seen.
            Overloaded: as many requests that name a lot of products are under way as may be.
        """
        large = request.items is not None and self._batcher.too_much(len(request.items))
        if large and self._large >= _MOST_LARGE:
            raise Overloaded(
                f"{self._large} requests that list as many ids in items are under way; send it again later"
            )
        self._large += large
        try:
            with self._slot.pinned() as view:
                if request.at_least > view.seq:
                    raise CatalogueBehind(
                        f"at_least: change {request.at_least} of the catalogue is not here yet, the newest is "
                        f"{view.seq}; send it again later"
                    )
                return await self._recommend(request, view)
        finally:
            self._large -= large

    async def _recommend(self, request: RecommendRequest, view: View) -> Recommendation:
        context, eligibility, release = request.context, view.eligibility, view.release
        channel, place = eligibility.channel(context.channel), eligibility.place(context.location)
        moment = self._clock.moment(context.at, moves=not request.dry_run)
        codes = view.catalogue.context.codes(context.attributes)
        known = None if request.customer_id is None else await release.live.of(request.customer_id)
        history = release.live.anonymous if known is None else known.history
        if request.attributes:
            history = release.live.described(history, request.attributes)
        ahead = context.channel in view.catalogue.ahead
        situation = Situation(channel, -1, moment, codes, ahead=ahead).at(place, history.purchases)

        # To somebody who has bought nothing everything is new: the question is the same without it.
        novel = request.filter_already_bought
        if novel is None:  # whoever names products wants all of them
            novel = release.bundle.manifest.filter_already_bought and request.items is None
        novel = novel and len(history.purchases.rows_R) > 0
        products = offers = None
        degraded = known is not None and known.degraded
        if "product" in request.kinds:
            products = eligibility.products(context, place, moment)
            if request.filters:
                products = eligibility.filtered(products, request.filters)
            named = None if request.items is None else await _rows(request.items, view)
            products = _wanted(products, named, history if novel else None)
        if "offer" in request.kinds:
            redeemed = await release.redemptions.now()
            offers = Offered(
                eligibility.offers(context, place, moment, history.audiences, history.redeemed_R),
                redeemed.times_O,
            )
            degraded |= redeemed.degraded

        excluded = _excluded(request.exclude, view)
        if len(excluded) > _HIDDEN and products is not None:
            gone = [row for kind, row in excluded if kind == "product"]
            products = EligibleSet.derived(products, np.array(gone, np.int64))
            excluded = frozenset(one for one in excluded if one[0] == "offer")
        acted = history.has_interactions
        if acted or release.rankers is not None:
            to_rank = RankRequest(
                view=view,
                history=history,
                situation=situation,
                place=place,
                products=products,
                offers=offers,
                limit=request.limit,
                excluded=excluded,
                explain=request.explain,
                novel=novel,
                rank_all=request.items is not None,
            )
            anonymous = history is release.live.anonymous
            shown = await (self._anonymous.of(to_rank, self._shown) if anonymous else self._shown(to_rank))
        else:
            eligible = None if offers is None else offers.eligible
            session = session_of(history, moment)
            ranked = rank_popular(view, place, products, eligible, request.limit, excluded, session)
            shown = _Shown(ranked, reasons(ranked, view, history, place, moment))
        answer = Recommendation(
            recommendation_id=next(self._ids),
            model_version=release.version,
            catalogue_seq=view.seq,
            items=_items(*shown, view, request),
            personalised=acted and any(one.source != "popular" for one in shown.ranked),
            fallback=False,
            degraded=degraded
            or self._changes_are_late()
            or release.bundle.degraded is not None
            or release.bundle.manifest.is_stale(moment),
        )
        if not request.dry_run and self._decisions.wants(answer.recommendation_id):
            self._decisions.add(_decision(request, answer, moment, view, codes))
        return answer

    async def _shown(self, request: RankRequest) -> _Shown:
        ranked = await self._batcher.submit(request)
        why = reasons(ranked, request.view, request.history, request.place, request.situation.moment)
        return _Shown(ranked, why)


def _decision(
    request: RecommendRequest, answer: Recommendation, moment: int, view: View, codes: Sequence[int]
) -> Decision:
    """Return what is kept of an answer; ``codes`` are those of the request's context attributes, 0 of unknown ones."""
    said, items = request.context.attributes, answer.items
    return Decision(
        answer.recommendation_id,
        moment,
        request.customer_id,
        request.context.channel,
        request.context.location,
        {name: said[name] for name, code in zip(view.catalogue.context.names, codes, strict=True) if code},
        answer.model_version,
        answer.catalogue_seq,
        answer.personalised,
        answer.degraded,
        [one.id for one in items],
        [one.kind for one in items],
        [one.score for one in items],
        [one.source for one in items],
    )


async def _rows(ids: Sequence[str], view: View) -> NDArray[np.int64]:
    """Return the rows of the products that the catalogue knows; look up some at a time, and let others run between."""
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(ids), _LOOKED_UP):
        if start:
            await asyncio.sleep(0)
        rows = view.catalogue.products.ids.rows(ids[start : start + _LOOKED_UP])
        found.append(rows[rows >= 0])
    return np.concatenate(found)


def _wanted(eligible: EligibleSet, named: NDArray[np.int64] | None, buyer: History | None) -> EligibleSet:
    """Return the part of an eligible set that is named, if names are given, and not bought by a given buyer."""
    if named is not None:
        eligible = eligible.among(named)
    if buyer is not None:
        eligible = EligibleSet.derived(eligible, buyer.purchases.rows_R)
    return eligible


def _excluded(ids: Sequence[str], view: View) -> frozenset[tuple[str, int]]:
    catalogue = view.catalogue
    if not ids:
        return frozenset()
    products, offers = catalogue.products.ids.rows(ids).tolist(), catalogue.offers.ids.rows(ids).tolist()
    found = [("product", row) for row in products if row >= 0]
    return frozenset(found + [("offer", row) for row in offers if row >= 0])


def _items(ranked: Sequence[Ranked], why: Sequence[list[Reason]], view: View, request: RecommendRequest) -> list[Item]:
    catalogue, include = view.catalogue, request.include
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
