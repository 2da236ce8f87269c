"""What a customer did lately: what lies in the basket, what was looked at, what was dismissed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.history import ADD_TO_CART, DISMISSAL, LOOKS, History

SESSION_SECONDS = 6 * 3_600
"""How long a session lasts: what lies further back in time says nothing of now."""

DISMISSED_SECONDS = 30 * 86_400
"""How long a dismissal keeps what was dismissed back."""


class Session(NamedTuple):
    """What happened since the last purchase and within ``SESSION_SECONDS``, by product row.

    Attributes:
        dismissed: int64, as the others, ascending; of the last ``DISMISSED_SECONDS``.
    """

    cart: NDArray[np.int64]
    looked: NDArray[np.int64]
    dismissed: NDArray[np.int64]


def session_of(history: History, moment: int) -> Session | None:
    """What happened lately, as of a moment; None if nothing did."""
    if history.acted < moment - DISMISSED_SECONDS:  # mostly: nothing but purchases
        return None
    recent_E = history.events_E
    recent_E = recent_E[(recent_E["at"] >= moment - DISMISSED_SECONDS) & (recent_E["product"] >= 0)]
    dismissed = recent_E["product"][recent_E["type"] == DISMISSAL]
    begin = max(moment - SESSION_SECONDS, history.purchases.newest)
    now_E = recent_E[recent_E["at"] > begin]
    cart = np.unique(now_E["product"][now_E["type"] == ADD_TO_CART])
    looked = np.unique(now_E["product"][np.isin(now_E["type"], LOOKS)])
    return Session(*(one.astype(np.int64) for one in (cart, looked, np.unique(dismissed))))
