"""A customer's session: the products in the basket, those looked at, and what was dismissed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.customer.history import History, of_types

SESSION_SECONDS = 6 * 3_600
"""How long a session lasts: what lies further back in time says nothing of now."""

DISMISSED_SECONDS = 30 * 86_400
"""How long a dismissal keeps what was dismissed back."""

_LOOKED, _DISMISSED = of_types("view", "click"), of_types("dismissal")


class Session(NamedTuple):
    """Product rows of the events since the last purchase and within ``SESSION_SECONDS``.

    All int64, ascending.

    Attributes:
        cart: put into the basket and not taken out of it again.
        looked: viewed or clicked.
        dismissed: within ``DISMISSED_SECONDS``, whatever was bought since.
        dismissed_offers: the same of offers, by offer row.
    """

    cart: NDArray[np.int64]
    looked: NDArray[np.int64]
    dismissed: NDArray[np.int64]
    dismissed_offers: NDArray[np.int64]


def session_of(history: History, moment: int) -> Session | None:
    """Return the session as of a moment; None if the customer did nothing lately."""
    if history.acted < moment - DISMISSED_SECONDS:  # mostly: nothing but purchases
        return None
    cart, looked = kernel.visit(history.events_E, moment - SESSION_SECONDS, _LOOKED)
    dismissed_after = moment - DISMISSED_SECONDS - 1
    return Session(
        cart=cart,
        looked=looked,
        dismissed=kernel.products_since(history.events_E, dismissed_after, _DISMISSED),
        dismissed_offers=kernel.offers_since(history.events_E, dismissed_after, _DISMISSED),
    )
