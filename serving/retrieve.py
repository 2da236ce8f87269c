"""Retrieval for a whole batch: one encoder run, one search with every request's own eligible set, then the sources.

Letters: B requests, D dimensions, K candidates, O offers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import History
from embeddings.customer.session import Session
from embeddings.customer.tower_input import Situation, encode
from embeddings.index.base import Plan
from embeddings.ranking.sources import RETRIEVED, Proposed, RankingQuery, propose, times_more
from serving.view import View

_SOURCES = 5
"""How many times as much all sources together propose as the towers."""

_ALL = 2**31 - 1

_NONE, _NO_SCORES = np.zeros(0, np.int64), np.zeros(0, np.float32)


class Offered(NamedTuple):
    """The offers that may be shown.

    Attributes:
        redeemed_O: how often everybody has redeemed each offer of the catalogue until now.
    """

    eligible: EligibleSet
    redeemed_O: NDArray[np.float32]


class RankRequest(NamedTuple):
    """One request to be ranked.

    Attributes:
        view: what the request has pinned.
        products, offers: what may be shown; None where that kind was not asked for.
        limit: how many items to show.
        excluded: kinds and rows that are not to be shown.
        explain: whether what the ranker read is to be shown.
        novel: whether only products that the customer has never bought are wanted.
        rank_all: whether the whole set is to be ranked, as the request names its products.
        arranged: whether the answer is chosen among all that is ranked, and not the first of it.
    """

    view: View
    history: History
    situation: Situation
    place: Place
    products: EligibleSet | None
    offers: Offered | None
    limit: int
    excluded: frozenset[tuple[str, int]] = frozenset()
    explain: bool = False
    novel: bool = False
    rank_all: bool = False
    arranged: bool = False

    @property
    def kept(self) -> int:
        """Return how many ranked items of each kind are of use."""
        return _ALL if self.arranged else self.most

    @property
    def most(self) -> int:
        """Return how many ranked items are enough, whatever is excluded."""
        return self.limit + len(self.excluded)

    @property
    def rows(self) -> int:
        """Return about how many candidates there will be to rank."""
        return self.products.size if self.rank_all and self.products is not None else _SOURCES * self.candidates

    @property
    def candidates(self) -> int:
        """Return how many candidates to retrieve of each kind."""
        return max(RETRIEVED * times_more(self.most, novel=self.novel), self.most)

    @property
    def own(self) -> bool:
        """Return whether hardly any other request will ask for the same, so that the answer is not remembered."""
        part = self.products is not None and self.products.own
        return bool(self.excluded) or self.rank_all or part


class Retrieved(NamedTuple):
    """The result of retrieval for one request; the candidates are empty where no products are asked for.

    Attributes:
        query: what sources looked at, which the rankers read, too.
        customer_D: the customer's vector.
        nearest_K: inner products with it of what the towers retrieved, the largest first; -inf in pads.
        candidates: what sources proposed.
        demoted: candidates that lie in the basket already or were dismissed, as rows.
        plan: how the towers' candidates were searched; None where they were not.
    """

    query: RankingQuery
    customer_D: NDArray[np.float32]
    nearest_K: NDArray[np.float32]
    candidates: Proposed
    demoted: NDArray[np.int64]
    plan: Plan | None


_NONE_ELIGIBLE = EligibleSet.of(np.zeros(0, np.int32), FOREVER)
_NO_CANDIDATES = Proposed(_NONE, _NONE)


def retrieve(requests: Sequence[RankRequest]) -> list[Retrieved]:
    """Retrieve the candidates worth ranking for requests of the same release that want equally many candidates."""
    release, k = requests[0].view.release, requests[0].candidates
    bundle, rows = release.bundle, release.newest
    tower_input = encode(
        [one.history for one in requests],
        [one.situation for one in requests],
        bundle.manifest.history_length,
        rows.statistics.longest_absence,
    )
    customers_BD = bundle.customer_encoder.encode(tower_input, rows.vectors)
    if all(one.products is None for one in requests):
        found = [(_NONE, _NO_SCORES, None)] * len(requests)
    else:
        nearest = rows.products.search(customers_BD, k, [_to_search(one.products) for one in requests])
        found = list(zip(nearest.rows_BK, nearest.scores_BK, nearest.plans_B, strict=True))
    return [
        _retrieved(request, customer_D, *nearest)
        for request, customer_D, nearest in zip(requests, customers_BD, found, strict=True)
    ]


def _retrieved(
    request: RankRequest,
    customer_D: NDArray[np.float32],
    rows_K: NDArray[np.int64],
    nearest_K: NDArray[np.float32],
    plan: Plan | None,
) -> Retrieved:
    release, eligible = request.view.release, _to_search(request.products)
    statistics = release.newest.statistics
    observed = statistics.observed
    query = RankingQuery.of(
        release.profile(request.history.purchases),
        request.history,
        statistics.bought_together,
        request.situation,
        eligible,
        rows_K,
        release.popular.of(observed, eligible, observed.lists_of(request.place.rows)).rows_K,
        novel=request.novel,
        wanted=request.most,
        rank_all=request.rank_all,
    )
    demoted = _NONE if query.session is None else demoted_products(query.session)
    candidates = _NO_CANDIDATES
    if request.products is not None:
        candidates = propose(query, list(release.sources.values()), request.most + len(demoted))
    return Retrieved(query, customer_D, nearest_K, candidates, demoted, plan)


def demoted_products(session: Session) -> NDArray[np.int64]:
    """Return the products that lie in the basket already or were dismissed."""
    return np.concatenate([session.cart, session.dismissed])


def _to_search(eligible: EligibleSet | None) -> EligibleSet:
    """Return the eligible set to search; an empty one if the request does not ask for its kind."""
    return _NONE_ELIGIBLE if eligible is None else eligible
