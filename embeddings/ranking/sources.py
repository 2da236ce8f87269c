"""Sources of candidates: small classes, each with one way of proposing products of an eligible set.

Letters: K products proposed, O a customer's own, R products bought.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import History
from embeddings.customer.session import Session, session_of
from embeddings.customer.tower_input import Situation
from embeddings.ranking.acceptance import shown_lately
from embeddings.ranking.profile import Local, Profile
from embeddings.ranking.statistics import Neighbours, Scored

SourceName = Literal["bought_together", "due_now", "buy_again", "also_bought", "towers", "trending"]

SOURCES: tuple[SourceName, ...] = get_args(SourceName)
"""All of them, the most telling first: a candidate of several carries the name of the first."""

RETRIEVED = 24
"""How many candidates the towers retrieve, in training and in service alike."""

_AGAIN, _DUE, _ALSO_BOUGHT, _TRENDING, _BOUGHT_TOGETHER = 50, 15, 12, 12, 30
FEW = 20
"""Where more products are wanted, more is proposed."""

MORE = 3
"""How many times as much is proposed there, and where nothing bought before is wanted."""

_HERE = 2.0
"""How much more a purchase counts at the very location asked about: 1 + this."""

_NONE = np.zeros(0, np.int64)
_NOTHING: Scored = (_NONE, np.zeros(0, np.float32))


class RankingQuery(NamedTuple):
    """One request, as sources and rankers read it. Make one with `of`.

    Attributes:
        profile, history: statistics of the customer's purchases, and all the customer's events.
        situation: where and when, and on which channel.
        local: what the customer bought at its location.
        session: what happened lately, None if nothing did.
        meant: catalogue rows of the products that the session is about, in the basket or looked at.
        bought_together: products that lie in the same baskets as these.
        shown: products shown to the customer lately, each with the log of one more than how often; see `shown_lately`.
        retrieved_K: the products nearest to the customer's vector, the nearest first; -1 pads.
        popular_K: the most popular products of the set in the place, the most popular first.
        novel: whether the set holds nothing bought before.
        more: how many times as much is to be proposed.
        rank_all: whether the whole set is to be ranked, whatever sources propose.
    """

    profile: Profile
    history: History
    situation: Situation
    local: Local
    session: Session | None
    meant: NDArray[np.int64]
    bought_together: Scored
    shown: Scored
    eligible: EligibleSet
    retrieved_K: NDArray[np.int64]
    popular_K: NDArray[np.int64]
    novel: bool
    more: int
    rank_all: bool

    @classmethod
    def of(
        cls,
        profile: Profile,
        history: History,
        bought_together: Neighbours,
        situation: Situation,
        eligible: EligibleSet,
        retrieved_K: NDArray[np.int64],
        popular_K: NDArray[np.int64],
        *,
        novel: bool = False,
        wanted: int = FEW,
        rank_all: bool = False,
    ) -> Self:
        """Return the query of a customer with this history for ``wanted`` products, in a situation."""
        session = session_of(history, situation.moment)
        meant, beside = _NONE, _NOTHING
        if session is not None:
            meant = np.concatenate([session.cart, session.looked])
            beside = bought_together.around(meant, np.ones(len(meant), np.float32))
        return cls(
            profile,
            history,
            situation,
            profile.at(situation.location),
            session,
            meant,
            beside,
            shown_lately(history, situation.moment),
            eligible,
            retrieved_K,
            popular_K,
            novel,
            times_more(wanted, novel=novel),
            rank_all,
        )


def times_more(wanted: int, *, novel: bool) -> int:
    """Return the factor on what sources propose: larger if many products are wanted, or novel ones."""
    return MORE if novel or wanted > FEW else 1


class Source(Protocol):
    """Proposes catalogue rows of the eligible set, distinct, in any order."""

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        """Return candidates of the eligible set; none if this source has no proposal."""
        ...


class Towers:
    """Proposes the products whose vectors are nearest to the customer's."""

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        """Return the products that the towers retrieved."""
        rows_K = query.retrieved_K
        return rows_K[rows_K >= 0] if len(rows_K) and rows_K[-1] < 0 else rows_K


class BuyAgain:
    """Proposes what the customer buys: first what is bought most often, most lately and most at this location."""

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        """Return the customer's own products with the largest decayed counts."""
        return kernel.again(
            query.profile.customer, query.local.slow_R, _HERE, query.eligible.members, _AGAIN * query.more
        )


class DueNow:
    """Proposes what the customer buys in a rhythm and is due to buy again."""

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        """Return the customer's own products bought on several days whose usual gap has just passed."""
        away = query.profile.away(query.situation.moment)
        return kernel.due(query.profile.customer, away, query.eligible.members, _DUE * query.more)


class AlsoBought:
    """Proposes what customers who buy the same buy too."""

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        """Return the neighbours of the products that the customer buys most."""
        return kernel.largest(query.profile.also_bought, query.eligible.members, _ALSO_BOUGHT * query.more)


class BoughtTogether:
    """Proposes what lies in the same baskets as the products in this customer's basket now."""

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        """Return the products looked at, and the neighbours of these and of the products in the basket."""
        if query.session is None:
            return _NONE
        looked = query.session.looked
        found = kernel.largest(query.bought_together, query.eligible.members, _BOUGHT_TOGETHER)
        return kernel.merged([found, looked[query.eligible.contains(looked)]])[0] if len(looked) else found


class Trending:
    """Proposes what everybody buys lately in the place."""

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        """Return the most popular products of the place."""
        return query.popular_K[: _TRENDING * query.more]


ALL: Mapping[SourceName, Source] = {
    "bought_together": BoughtTogether(),
    "due_now": DueNow(),
    "buy_again": BuyAgain(),
    "also_bought": AlsoBought(),
    "towers": Towers(),
    "trending": Trending(),
}
"""Every source, in the order of ``SOURCES``."""


class Proposed(NamedTuple):
    """The candidates of one request.

    Attributes:
        rows_K: catalogue rows, ascending.
        sources_K: each one's source, as its place among the sources asked; one past the last for what follows.
    """

    rows_K: NDArray[np.int64]
    sources_K: NDArray[np.int64]


def propose(query: RankingQuery, some: Sequence[Source], least: int = 0) -> Proposed:
    """Return the candidates of some sources, followed by popular products if these are fewer than ``least``.

    If the whole set is to be ranked, the rest of the set follows.
    """
    parts = [source.propose(query) for source in some]
    proposed = Proposed(*kernel.merged(parts))
    if query.rank_all or len(proposed.rows_K) < least:
        parts.append(
            query.eligible.rows_N.astype(np.int64)
            if query.rank_all
            else query.popular_K[: least + len(proposed.rows_K)]
        )
        proposed = Proposed(*kernel.merged(parts))
    return proposed
