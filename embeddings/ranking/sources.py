"""Where candidates come from: small classes, each with one way of proposing products of an eligible set.

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
from embeddings.ranking.profile import DAY, Local, Profile
from embeddings.ranking.statistics import Neighbours, Scored

SourceName = Literal["together", "due_now", "buy_again", "alike", "towers", "trending"]

SOURCES: tuple[SourceName, ...] = get_args(SourceName)
"""All of them, the most telling first: a candidate of several carries the name of the first."""

RETRIEVED = 24
"""How many candidates the towers retrieve, in training and in service alike."""

_AGAIN, _DUE, _ALIKE, _TRENDING, _TOGETHER = 50, 15, 12, 12, 30
FEW = 20
"""Where more products are wanted, more is proposed."""

MORE = 3
"""How many times as much is proposed there, and where nothing bought before is wanted."""

_HERE = 2.0
"""How much more a purchase counts at the very location asked about: 1 + this."""

_NONE = np.zeros(0, np.int64)
_NOTHING_TOGETHER: Scored = (_NONE, np.zeros(0, np.float32))


class Asked(NamedTuple):
    """What sources may look at. Make one with `of`.

    Attributes:
        profile, history: what the customer bought, worked out, and all that the customer did.
        location: its row, -1 for none.
        moment: seconds since 1970 UTC.
        local: what the customer bought at that location.
        session: what happened lately, None if nothing did.
        meant: what the session is about, in the basket or looked at; catalogue rows.
        together: what lies in the same baskets as that.
        retrieved_K: the products nearest to the customer's vector, the nearest first; -1 pads.
        popular_K: the most popular products of the set in the place, the most popular first.
        novel: whether the set holds nothing bought before.
        more: how many times as much is to be proposed.
        every: whether the whole set is to be ranked, whatever sources propose.
    """

    profile: Profile
    history: History
    location: int
    moment: int
    local: Local
    session: Session | None
    meant: NDArray[np.int64]
    together: Scored
    eligible: EligibleSet
    retrieved_K: NDArray[np.int64]
    popular_K: NDArray[np.int64]
    novel: bool
    more: int
    every: bool

    @classmethod
    def of(
        cls,
        profile: Profile,
        history: History,
        together: Neighbours,
        location: int,
        moment: int,
        eligible: EligibleSet,
        retrieved_K: NDArray[np.int64],
        popular_K: NDArray[np.int64],
        *,
        novel: bool = False,
        wanted: int = FEW,
        every: bool = False,
    ) -> Self:
        """What a customer with this past asks now, at this location; ``wanted`` is how many products."""
        session = session_of(history, moment)
        meant, beside = _NONE, _NOTHING_TOGETHER
        if session is not None:
            meant = np.concatenate([session.cart, session.looked])
            beside = together.around(meant, np.ones(len(meant), np.float32))
        return cls(
            profile,
            history,
            location,
            moment,
            profile.at(location),
            session,
            meant,
            beside,
            eligible,
            retrieved_K,
            popular_K,
            novel,
            times_more(wanted, novel=novel),
            every,
        )


def times_more(wanted: int, *, novel: bool) -> int:
    """How many times as much is proposed where so many products are wanted, or novel ones."""
    return MORE if novel or wanted > FEW else 1


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
        return kernel.again(
            asked.profile.customer, asked.local.slow_R, _HERE, asked.eligible.members, _AGAIN * asked.more
        )


class DueNow:
    """What the customer buys in a rhythm, and whose time has come."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The own products bought on several days whose usual gap has just passed."""
        profile = asked.profile
        aged = max(asked.moment - profile.newest, 0) / DAY
        return kernel.due(profile.customer, aged, asked.eligible.members, _DUE * asked.more)


class Alike:
    """What customers who buy the same buy too."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The neighbours of what the customer buys most."""
        return kernel.largest(asked.profile.alike, asked.eligible.members, _ALIKE * asked.more)


class Together:
    """What lies in the same baskets as what is in this customer's basket now."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The neighbours of the basket and of what was looked at, and what was looked at itself."""
        if asked.session is None:
            return _NONE
        looked = asked.session.looked
        found = kernel.largest(asked.together, asked.eligible.members, _TOGETHER)
        return kernel.merged([found, looked[asked.eligible.contains(looked)]])[0] if len(looked) else found


class Trending:
    """What everybody buys lately, here."""

    def propose(self, asked: Asked) -> NDArray[np.int64]:
        """The most popular products of the place."""
        return asked.popular_K[: _TRENDING * asked.more]


ALL: Mapping[SourceName, Source] = {
    "together": Together(),
    "due_now": DueNow(),
    "buy_again": BuyAgain(),
    "alike": Alike(),
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


def propose(asked: Asked, some: Sequence[Source], least: int = 0) -> Proposed:
    """Ask some sources; should they propose fewer than ``least`` in all, what is popular follows.

    Where the whole set is to be ranked, the rest of it follows.
    """
    parts = [source.propose(asked) for source in some]
    proposed = Proposed(*kernel.merged(parts))
    if asked.every or len(proposed.rows_K) < least:
        parts.append(
            asked.eligible.rows_N.astype(np.int64) if asked.every else asked.popular_K[: least + len(proposed.rows_K)]
        )
        proposed = Proposed(*kernel.merged(parts))
    return proposed
