"""Retrieval for a whole batch: one encoder run, then one search with every request's own eligible set.

Letters: B requests, D dimensions, K candidates, O offers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import History
from embeddings.customer.tower_input import Situation, encode
from embeddings.index.base import Candidates
from embeddings.ranking.sources import RETRIEVED, times_more
from serving.slot import Model

_SOURCES = 5
"""How many times as much all sources together propose as the towers."""


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
        products, offers: what may be shown; None where that kind was not asked for.
        limit: how many items to show.
        excluded: kinds and rows that are not to be shown.
        explain: whether what the ranker read is to be shown.
        novel: whether only products that the customer has never bought are wanted.
        rank_all: whether the whole set is to be ranked, as the request names its products.
    """

    model: Model
    history: History
    situation: Situation
    products: EligibleSet | None
    offers: Offered | None
    limit: int
    excluded: frozenset[tuple[str, int]]
    place: Place
    explain: bool = False
    novel: bool = False
    rank_all: bool = False

    @property
    def most(self) -> int:
        """How many ranked items are enough, whatever is excluded."""
        return self.limit + len(self.excluded)

    @property
    def rows(self) -> int:
        """About how many candidates there will be to rank."""
        return self.products.size if self.rank_all and self.products is not None else _SOURCES * self.candidates

    @property
    def candidates(self) -> int:
        """How many to retrieve of each kind."""
        return max(RETRIEVED * times_more(self.most, novel=self.novel), self.most)

    @property
    def own(self) -> bool:
        """Whether something is asked for that hardly anybody else will ask for: nothing is remembered of that."""
        return bool(self.excluded) or self.rank_all or (self.products is not None and self.products.parent is not None)


class Retrieved(NamedTuple):
    """What the towers propose for each request of a batch; None where no request asks for products.

    Attributes:
        customers_BD: the customers' vectors.
    """

    customers_BD: NDArray[np.float32]
    products: Candidates | None


_NONE_ELIGIBLE = EligibleSet.of(np.zeros(0, np.int32), FOREVER)


def retrieve(asks: Sequence[RankRequest]) -> Retrieved:
    """Answer requests that pinned the same model and want as many candidates."""
    bundle, k = asks[0].model.bundle, asks[0].candidates
    tower_input = encode([ask.history for ask in asks], [ask.situation for ask in asks], bundle.manifest.history_length)
    customers_BD = bundle.customer_encoder.encode(tower_input, bundle.vectors_ND)
    products = None
    if any(ask.products is not None for ask in asks):
        products = bundle.products.search(customers_BD, k, [to_search(ask.products) for ask in asks])
    return Retrieved(customers_BD, products)


def to_search(eligible: EligibleSet | None) -> EligibleSet:
    """The set of a kind; an empty one stands in a batch for a kind that a request does not ask for."""
    return _NONE_ELIGIBLE if eligible is None else eligible
