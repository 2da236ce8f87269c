"""The use case: one recommendation, from a decoded request to its answer."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import accumulate
from random import SystemRandom
from typing import NamedTuple, TypeVar

import numpy as np
from msgspec import UNSET
from msgspec.structs import replace
from numpy.typing import NDArray

from embeddings.catalogue.eligibility import Place
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
from serving.decisioning.arrange import Key, Placed, pinned_products
from serving.decisioning.fill import filled, keys_of, worth
from serving.decisioning.placements import QUIET, Terms, is_quiet, terms_of
from serving.details import details_of
from serving.explain import Reason, reasons
from serving.rank_popular import rank_popular
from serving.ranked import Ranked
from serving.recommendation import Explanation, Item, Recommendation, Recommendations, RecommendRequest
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


Answer = TypeVar("Answer")


class _Shown(NamedTuple):
    """The items that are shown, and the reasons for each of them."""

    ranked: list[Ranked]
    why: list[list[Reason]]


class _Found(NamedTuple):
    """What one answer is made of.

    Attributes:
        codes: of the request's context attributes, 0 of unknown values.
        to_rank: what was asked for; None where the placement shows nothing now.
        shown: what was ranked.
    """

    view: View
    history: History
    place: Place
    moment: int
    codes: Sequence[int]
    degraded: bool
    to_rank: RankRequest | None
    shown: _Shown


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
        self._random = SystemRandom()
        self._ids = new_ids()

    async def recommend(self, request: RecommendRequest) -> Recommendation:
        """Return one recommendation.

        Raises:
            InvalidInput: the context names a channel or location that the catalogue does not know, or an attribute is
                given that no customer has; the placement is not declared, or does not show what is asked for.
            CatalogueBehind: the view lacks the change that the request wants to be seen.
            Overloaded: as many requests that name a lot of products are under way as may be.
        """
        return await self._admitted(request, self._one)

    async def recommend_several(self, request: RecommendRequest) -> Recommendations:
        """Return a recommendation for each placement that the request names; what one shows, no later one does.

        Raises:
            InvalidInput, CatalogueBehind, Overloaded: as for one.
        """
        return await self._admitted(request, self._several)

    async def _admitted(
        self, request: RecommendRequest, answer: Callable[[RecommendRequest, View], Awaitable[Answer]]
    ) -> Answer:
        """Answer a request from the view that it pins; raise Overloaded or CatalogueBehind if it cannot be."""
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
                return await answer(request, view)
        finally:
            self._large -= large

    async def _one(self, request: RecommendRequest, view: View) -> Recommendation:
        terms = terms_of(request, view.catalogue.placements, request.placement)
        return await self._answer(request, terms, await self._find(request, view, terms), request.placement)

    async def _several(self, request: RecommendRequest, view: View) -> Recommendations:
        several = [
            terms_of(request, view.catalogue.placements, one, f"placements[{place}]")
            for place, one in enumerate(request.placements)
        ]
        # All are ranked at once, each with as many more as those before it may take away. All have ended before the
        # view is let go, also where one fails.
        room = accumulate((terms.limit for terms in several), initial=0)
        found = await asyncio.gather(
            *(self._find(request, view, *one) for one in zip(several, room, strict=False)), return_exceptions=True
        )
        taken: set[Key] = set()
        answers: dict[str, Recommendation] = {}
        for name, terms, one in zip(request.placements, several, found, strict=True):
            if isinstance(one, BaseException):
                raise one
            answers[name] = await self._answer(request, terms, one, name, taken)
            taken |= keys_of(answers[name].items, view.catalogue)
        return Recommendations(answers)

    async def _find(self, request: RecommendRequest, view: View, terms: Terms, room: int = 0) -> _Found:
        """Rank what may be shown; with room for so many more items than are to be shown."""
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
        degraded = known is not None and known.degraded
        placement = terms.placement
        if placement is not None and is_quiet(placement, view.catalogue, place, moment):
            return _Found(view, history, place, moment, codes, degraded, None, _Shown([], []))

        # To somebody who has bought nothing everything is new: the question is the same without it.
        novel = request.filter_already_bought
        if novel is None:  # whoever names products wants all of them
            novel = release.bundle.manifest.filter_already_bought and request.items is None
        novel = novel and len(history.purchases.rows_R) > 0
        products = offers = None
        if "product" in terms.kinds:
            products = eligibility.products(context, place, moment)
            if request.filters:
                products = eligibility.filtered(products, request.filters)
            named = None if request.items is None else await _rows(request.items, view)
            products = _wanted(products, named, history if novel else None)
        if "offer" in terms.kinds:
            redeemed = await release.redemptions.now()
            offers = Offered(
                eligibility.offers(context, place, moment, history.audiences, history.redeemed_R),
                redeemed.times_O,
            )
            degraded |= redeemed.degraded

        excluded = _excluded(request.exclude if placement is None else (*request.exclude, *placement.excluded), view)
        if len(excluded) > _HIDDEN and products is not None:
            gone = [row for kind, row in excluded if kind == "product"]
            products = EligibleSet.derived(products, np.array(gone, np.int64))
            excluded = frozenset(one for one in excluded if one[0] == "offer")
        to_rank = RankRequest(
            view=view,
            history=history,
            situation=situation,
            place=place,
            products=products,
            offers=offers,
            limit=terms.limit + room,
            excluded=excluded,
            explain=request.explain,
            novel=novel,
            rank_all=request.items is not None,
            arranged=placement is not None or bool(request.placements),
        )
        shown = await self._rank(to_rank)
        if placement is not None and products is not None:
            missing = pinned_products(placement, view.catalogue, shown.ranked)
            pins = products.among(np.array(missing, np.int64))
            if pins.size:
                pinned = to_rank._replace(products=pins, offers=None, limit=pins.size, rank_all=True)
                shown = _Shown([*shown.ranked, *(await self._rank(pinned)).ranked], [])
        return _Found(view, history, place, moment, codes, degraded, to_rank, shown)

    async def _rank(self, request: RankRequest) -> _Shown:
        """Return the best items, or all that were ranked where they are still to be arranged: those without reasons."""
        view, history = request.view, request.history
        if history.has_interactions or view.release.rankers is not None:
            anonymous = history is view.release.live.anonymous
            return await (self._anonymous.of(request, self._shown) if anonymous else self._shown(request))
        eligible = None if request.offers is None else request.offers.eligible
        limit = request.limit
        if request.arranged and eligible is not None:  # every offer may be shown in the end
            limit += eligible.size
        moment = request.situation.moment
        session = session_of(history, moment)
        ranked = rank_popular(view, request.place, request.products, eligible, limit, request.excluded, session)
        return _Shown(ranked, [] if request.arranged else reasons(ranked, view, history, request.place, moment))

    async def _shown(self, request: RankRequest) -> _Shown:
        ranked = await self._batcher.submit(request)
        if request.arranged:
            return _Shown(ranked, [])
        why = reasons(ranked, request.view, request.history, request.place, request.situation.moment)
        return _Shown(ranked, why)

    async def _answer(
        self,
        request: RecommendRequest,
        terms: Terms,
        found: _Found,
        named: str | None,
        taken: Collection[Key] = (),
    ) -> Recommendation:
        """Return the answer made of what was ranked.

        Args:
            request: the request.
            terms: what the answer is to be.
            found: what was ranked.
            named: the placement that was asked for, if any.
            taken: what other answers to the same request show.
        """
        view, release, (ranked, why) = found.view, found.view.release, found.shown
        placed: list[Placed] | None = None
        fallback = False
        if found.to_rank is not None and found.to_rank.arranged:
            placed = filled(terms, ranked, view.catalogue, taken, self._random)
            if not placed:
                placed = await self._fallback(request, terms, found.to_rank, taken)
                fallback = bool(placed)
            ranked = [one.ranked for one in placed]
            why = reasons(ranked, view, found.history, found.place, found.moment)
        items = _items(ranked, why, view, request)
        answer = Recommendation(
            recommendation_id=next(self._ids),
            model_version=release.version,
            catalogue_seq=view.seq,
            items=items if placed is None else worth(items, placed, terms),
            personalised=found.history.has_interactions and any(one.source != "popular" for one in ranked),
            fallback=fallback,
            degraded=found.degraded
            or self._changes_are_late()
            or release.bundle.degraded is not None
            or release.bundle.manifest.is_stale(found.moment),
            placement=UNSET if named is None else named,
            stopped=QUIET if found.to_rank is None else UNSET,
        )
        if not request.dry_run and self._decisions.wants(answer.recommendation_id):
            self._decisions.add(_decision(request, answer, found, named))
        return answer

    async def _fallback(
        self, request: RecommendRequest, terms: Terms, to_rank: RankRequest, taken: Collection[Key]
    ) -> list[Placed]:
        """Return the fallback offers of the placement that may be shown, in its order."""
        view, placement = to_rank.view, terms.placement
        if placement is None or not placement.fallback:
            return []
        rows = [row for row in view.catalogue.offers.ids.rows(placement.fallback).tolist() if row >= 0]
        offers = view.eligibility.offers(
            request.context,
            to_rank.place,
            to_rank.situation.moment,
            to_rank.history.audiences,
            to_rank.history.redeemed_R,
        ).among(np.array(rows, np.int64))
        redeemed = await view.release.redemptions.now()
        offered = Offered(offers, redeemed.times_O)
        asked = to_rank._replace(products=None, offers=offered, limit=offers.size, rank_all=False)
        ranked = (await self._rank(asked)).ranked if offers.size else []
        left = [Placed(one) for one in ranked if (one.kind, one.row) not in taken]
        return sorted(left, key=lambda one: rows.index(one.ranked.row))[: terms.limit]


def _decision(request: RecommendRequest, answer: Recommendation, found: _Found, named: str | None) -> Decision:
    """Return what is kept of an answer to a request that named a placement, or none."""
    said, items, names = request.context.attributes, answer.items, found.view.catalogue.context.names
    explored = bool(items) and items[0].propensity is not UNSET
    return Decision(
        answer.recommendation_id,
        found.moment,
        request.customer_id,
        request.context.channel,
        request.context.location,
        named,
        {name: said[name] for name, code in zip(names, found.codes, strict=True) if code},
        answer.model_version,
        answer.catalogue_seq,
        answer.personalised,
        answer.degraded,
        [one.id for one in items],
        [one.kind for one in items],
        [one.score for one in items],
        [one.source for one in items],
        [one.propensity for one in items if one.propensity is not UNSET] if explored else None,
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
            explanation=_explanation(one) if request.explain else UNSET,
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
