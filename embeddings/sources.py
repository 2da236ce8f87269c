"""Where candidates come from: small classes, each with one way of proposing products of an eligible set.

Letters: K products proposed, O a customer's own, R products bought.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from embeddings.eligible import EligibleSet
from embeddings.profile import DAY, OWN, Local, Profile, Session
from embeddings.statistics import Neighbours

SourceName = Literal["together", "due_now", "buy_again", "alike", "towers", "trending"]

SOURCES: tuple[SourceName, ...] = get_args(SourceName)
"""All of them, the most telling first: a candidate of several carries the name of the first."""

RETRIEVED = 32
"""How many candidates the towers retrieve, in training and in service alike."""

_AGAIN, _DUE, _ALIKE, _TRENDING, _TOGETHER = 80, 20, 20, 20, 30
MORE = 3
"""How many times as much is proposed where nothing bought before is wanted."""

_HERE = 2.0
"""How much more a purchase counts at the very location asked about: 1 + this."""

_SETS_KEPT = 8
"""For how many sets a profile keeps what lies inside them: the few channels of one location."""

_SLOW, _SINCE, _GAP, _DAYS = (OWN.index(name) for name in ("slow", "since", "gap", "days"))
_NONE = np.zeros(0, np.int64)


class Asked(NamedTuple):
    """What sources may look at.

    Attributes:
        location: its row, -1 for none.
        moment: seconds since 1970 UTC.
        local: what the customer bought at that location.
        session: what happened lately, None if nothing did.
        retrieved_K: the products nearest to the customer's vector, the nearest first; -1 pads.
        popular_K: the most popular products of the set in the place, the most popular first.
        novel: whether the set holds nothing bought before; then the other sources propose more.
        every: whether the whole set is to be ranked, whatever sources propose.
    """

    profile: Profile
    location: int
    moment: int
    local: Local
    session: Session | None
    eligible: EligibleSet
    retrieved_K: NDArray[np.int64]
    popular_K: NDArray[np.int64]
    novel: bool = False
    every: bool = False


class Source(Protocol):
    """Proposes catalogue rows of the eligible set, distinct, in any order."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """Rows worth ranking; none if it has nothing to say."""
        ...


class Towers:
    """The products whose vectors are nearest to the customer's."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """What retrieval found."""
        rows_K = asked.retrieved_K
        return rows_K[rows_K >= 0] if len(rows_K) and rows_K[-1] < 0 else rows_K


class BuyAgain:
    """What the customer buys, the more often, the more lately and the more at this very location the sooner."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The own products of the largest decayed counts."""
        profile, local = asked.profile, asked.local

        def find() -> NDArray[np.int64]:
            weights_R = profile.own_RC[:-1, _SLOW] + _HERE * local.slow_R[:-1]
            return _most(profile.rows_R, weights_R, asked.eligible, _AGAIN)

        return _kept(asked, "again", find)


class DueNow:
    """What the customer buys in a rhythm, and whose time has come."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The own products bought on several days whose usual gap has just passed."""
        profile = asked.profile
        own = profile.own_RC[:-1]
        rhythmic_R = np.flatnonzero(own[:, _DAYS] > 1)
        if not len(rhythmic_R):
            return _NONE
        aged = max(asked.moment - profile.newest, 0) / DAY
        due_R = (own[rhythmic_R, _SINCE] + aged) / np.maximum(own[rhythmic_R, _GAP], 0.5)
        # A log-normal bump around the usual gap, times how often it is bought at all.
        weights_R = own[rhythmic_R, _SLOW] * np.exp(-2 * np.log(np.maximum(due_R, 0.01)) ** 2).astype(np.float32)
        return _most(profile.rows_R[rhythmic_R], weights_R, asked.eligible, _DUE)


class Alike:
    """What customers who buy the same buy too."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The neighbours of what the customer buys most."""
        profile = asked.profile
        most = _ALIKE * (MORE if asked.novel else 1)
        return _kept(asked, "alike", lambda: _most(profile.alike_rows, profile.alike_scores, asked.eligible, most))


class Together:
    """What lies in the same baskets as what is in this customer's basket now."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The neighbours of the basket and of what was looked at, and what was looked at itself."""
        if asked.session is None:
            return _NONE
        session = asked.session
        meant = np.concatenate([session.cart, session.looked])
        rows, scores = self._neighbours.around(meant, np.ones(len(meant), np.float32))
        found = _most(rows, scores, asked.eligible, _TOGETHER)
        looked = session.looked[asked.eligible.contains(session.looked)]
        return np.union1d(found, looked) if len(looked) else found


class Trending:
    """What everybody buys lately, here."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The most popular products of the place."""
        return asked.popular_K[: _TRENDING * (MORE if asked.novel else 1)]


def sources(together: Neighbours) -> Mapping[SourceName, Source]:
    """Every source, in the order of ``SOURCES``."""
    return {
        "together": Together(together),
        "due_now": DueNow(),
        "buy_again": BuyAgain(),
        "alike": Alike(),
        "towers": Towers(),
        "trending": Trending(),
    }


class Proposed(NamedTuple):
    """The candidates of one request.

    Attributes:
        rows_K: catalogue rows, ascending.
        sources_K: each one's source, as its place among the sources asked; one past the last for what follows.
    """

    rows_K: NDArray[np.int64]
    sources_K: NDArray[np.intp]


def propose(asked: Asked, some: Sequence[Source], least: int = 0) -> Proposed:
    """Ask some sources; should they propose fewer than ``least`` in all, what is popular follows.

    Where the whole set is to be ranked, the rest of it follows.
    """
    parts = [source.propose(asked) for source in some]
    rows_K, first_K = np.unique(np.concatenate(parts), return_index=True)
    if asked.every or len(rows_K) < least:
        parts.append(asked.eligible.rows_N.astype(np.int64) if asked.every else asked.popular_K[: least + len(rows_K)])
        rows_K, first_K = np.unique(np.concatenate(parts), return_index=True)
    ends = np.cumsum([len(part) for part in parts])
    return Proposed(rows_K, ends.searchsorted(first_K, side="right"))


def _kept(asked: Asked, what: str, find: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
    """What a source found for this history, location and set before: a customer mostly meets the same few."""
    key = (what, asked.location, asked.eligible.fingerprint, asked.novel)
    kept = asked.profile.kept
    found = kept.get(key)
    if found is None:
        found = find()
        if len(kept) < 2 * _SETS_KEPT:
            kept[key] = found
    return found


def _most(
    rows_R: NDArray[np.int64], weights_R: NDArray[np.floating], eligible: EligibleSet, most: int
) -> NDArray[np.int64]:
    """The eligible rows of the largest weights, in no order."""
    inside_R = eligible.contains(rows_R)
    rows_R, weights_R = rows_R[inside_R], weights_R[inside_R]
    if len(rows_R) <= most:
        return rows_R
    # Ties by row: what is proposed must not depend on how a partition happens to fall.
    return rows_R[np.lexsort((rows_R, -weights_R))[:most]]
