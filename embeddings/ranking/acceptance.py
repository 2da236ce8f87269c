"""How likely offers and products are taken when they are shown, by what was shown, taken and refused before.

Letters: X exposures, E events, O offers, F fields, V values of all fields, K products shown.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from embeddings.customer.history import DISMISSAL, IMPRESSION, PURCHASE, REDEMPTION, VISIT_SECONDS, Events, History
from embeddings.customer.tower_input import WEEKDAYS, weekday_of

ACCEPTED_WITHIN = 7 * 86_400
"""A redemption accepts the newest exposure of its offer to its customer that is at most so many seconds old; so does a
purchase that of its product."""

LATELY = 30 * 86_400
"""For so many seconds what a customer was shown says something of the customer."""

PARTS_OF_DAY = 6
"""Of four hours each."""

_DAY = 86_400
_NONE, _NOTHING = np.zeros(0, np.int64), np.zeros(0, np.float32)
_FILES = tuple(f"acceptance-{name}" for name in ("offers", "unseen", "evidence", "fields", "of-customer", "until"))
"""Names of the arrays of `Acceptance`, in its order."""

_LARGEST_LOG = 12.0


class Exposures(NamedTuple):
    """What was shown: one exposure for all impressions of an offer, or of a product, within a visit, and its dismissal.

    A dismissal without an impression shortly before it is an exposure, too.

    Attributes:
        owners_X: int64, to which customer.
        rows_X: int64, of the offers or the products.
        places_X: int64, place of the first event among all events given.
        at_X: int64, its moment.
        accepted_at_X: int64, when the customer redeemed the offer or bought the product, within `ACCEPTED_WITHIN` and
            before it was shown again; 0 for what was refused.
    """

    owners_X: NDArray[np.int64]
    rows_X: NDArray[np.int64]
    places_X: NDArray[np.int64]
    at_X: NDArray[np.int64]
    accepted_at_X: NDArray[np.int64]

    @property
    def accepted_X(self) -> NDArray[np.bool_]:
        """Return which of them were accepted."""
        return self.accepted_at_X > 0

    def before(self, moment: int) -> Self:
        """Return what was shown before a moment; what was taken from then on was not yet."""
        accepted_at_X = np.where(self.accepted_at_X < moment, self.accepted_at_X, 0)
        return self._replace(accepted_at_X=accepted_at_X).some(self.at_X < moment)

    def ripe(self, moment: int) -> Self:
        """Return what was shown so long before a moment that it cannot be accepted any more."""
        return self.some(self.at_X < moment - ACCEPTED_WITHIN)

    def some(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Return some of them, chosen by a mask or by their places."""
        return type(self)(*(column[chosen] for column in self))


def find_exposures(
    events_E: Events, owners_E: NDArray[np.int64], of: Literal["offer", "product"] = "offer"
) -> Exposures:
    """Return the exposures of known offers or products, by customer, row and time.

    Args:
        events_E: of some customers.
        owners_E: to whom each belongs.
        of: what was shown.
    """
    taken_E = events_E["type"] == (REDEMPTION if of == "offer" else PURCHASE)
    shown_E = (events_E["type"] == IMPRESSION) | (events_E["type"] == DISMISSAL)
    shown_E &= events_E[of] >= 0
    if not shown_E.any():
        return Exposures(*([np.zeros(0, np.int64)] * len(Exposures._fields)))
    places_E = np.flatnonzero(shown_E | (taken_E & (events_E[of] >= 0)))
    some, owners = events_E[places_E], owners_E[places_E]
    order = np.lexsort((taken_E[places_E], some["at"], some[of], owners))
    some, owners, places_E = some[order], owners[order], places_E[order]
    rows, at, shown = some[of].astype(np.int64), some["at"], shown_E[places_E]
    begins = np.zeros(len(some), np.bool_)
    shown_S = np.flatnonzero(shown)
    other_S = np.ones(len(shown_S), np.bool_)
    other_S[1:] = (np.diff(owners[shown_S]) != 0) | (np.diff(rows[shown_S]) != 0)
    # A refusal may be noted days later; it is of what was shown, and no second exposure.
    refused_S = some["type"][shown_S] == DISMISSAL
    other_S[1:] |= np.diff(at[shown_S]) > np.where(refused_S[1:], ACCEPTED_WITHIN, VISIT_SECONDS)
    begins[shown_S[other_S]] = True
    first_X = np.flatnonzero(begins)
    accepted_at_X = np.zeros(len(first_X), np.int64)
    of_X = np.cumsum(begins) - 1
    newest = first_X[np.maximum(of_X, 0)]
    follows = ~shown & (of_X >= 0) & (owners == owners[newest]) & (rows == rows[newest])
    follows &= at - at[newest] <= ACCEPTED_WITHIN
    accepted_at_X[of_X[follows][::-1]] = at[follows][::-1]  # of several the first
    return Exposures(owners[first_X], rows[first_X], places_E[first_X], at[first_X], accepted_at_X)


def shown_lately(history: History, moment: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the products (K) shown to a customer lately, ascending, each with the log of one more than how often.

    A history holds what was shown before the data cut-off of its release: an example of training what was shown before
    its window.
    """
    if history.shown < moment - LATELY:
        return _NONE, _NOTHING
    events_E = history.events_E
    shown_E = (events_E["type"] == IMPRESSION) & (events_E["product"] >= 0)
    shown_E &= events_E["at"] > moment - LATELY
    rows_K, times_K = np.unique(events_E["product"][shown_E].astype(np.int64), return_counts=True)
    return rows_K, np.log1p(times_K).astype(np.float32)


class Acceptance(NamedTuple):
    """The log-odds that an offer is accepted when it is shown.

    Every field is an attribute of the customer or a part of the situation, in the order of ``customer_codes`` and
    ``situation_codes``. What a value of a field says of an offer is added to the offer's log-odds, as in a naive Bayes
    classifier.

    Attributes:
        log_odds_O: float32, of each offer; empty where nothing was learnt from exposures.
        unseen: float32, of an offer that came later, in an array of one.
        evidence_OV: float32, what each value adds.
        offsets_F: int64, where the values of each field begin; the last is where they end.
        of_customer: how many of the fields, the first ones, are the customer's, in an array of one.
        until: the moment before which exposures were counted, in an array of one.
    """

    log_odds_O: NDArray[np.float32]
    unseen: NDArray[np.float32]
    evidence_OV: NDArray[np.float32]
    offsets_F: NDArray[np.int64]
    of_customer: NDArray[np.int64]
    until: NDArray[np.int64]

    @classmethod
    def none(cls) -> Self:
        """Return what is known where nothing is."""
        nothing = np.zeros(0, np.float32)
        zero = np.zeros(1, np.int64)
        return cls(nothing, np.zeros(1, np.float32), nothing.reshape(0, 0), zero, zero, zero)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays, by name of the file that holds each."""
        return dict(zip(_FILES, self, strict=True))

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what ``arrays`` made arrays of, whatever else is among them."""
        return cls(*(arrays[name] for name in _FILES))

    @property
    def known(self) -> bool:
        """Return whether exposures have taught anything."""
        return len(self.log_odds_O) > 0

    def log_odds(
        self, offers_O: NDArray[np.integer], codes_F: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return the log-odds (O) of some offers: of each, for such a customer, and in such a situation.

        Args:
            offers_O: rows of offers; nothing is known of later ones.
            codes_F: a code of each field; one that came later is unknown.
        """
        held_O = offers_O < len(self.log_odds_O)
        known_O = offers_O[held_O]
        log_odds_O = np.full(len(offers_O), self.unseen[0], np.float32)
        log_odds_O[held_O] = self.log_odds_O[known_O]
        sizes_F = np.diff(self.offsets_F)
        columns_F = self.offsets_F[:-1] + np.where(codes_F < sizes_F, codes_F, 0)
        evidence_OF = self.evidence_OV[known_O[:, None], columns_F]
        bounds = int(self.of_customer[0])
        customer_O, situation_O = log_odds_O.copy(), log_odds_O.copy()
        customer_O[held_O] += evidence_OF[:, :bounds].sum(axis=1)
        situation_O[held_O] += evidence_OF[:, bounds:].sum(axis=1)
        return log_odds_O, customer_O, situation_O


def situation_codes(
    channels_X: NDArray[np.int64], at_X: NDArray[np.int64], context_XC: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the codes (X, F) of some situations: of channel, weekday, part of the day, and context attributes.

    Args:
        channels_X: codes, -1 if unknown.
        at_X: seconds since 1970 UTC.
        context_XC: codes of the context attributes.
    """
    parts_X = at_X % _DAY * PARTS_OF_DAY // _DAY
    return np.column_stack([channels_X + 1, weekday_of(at_X), parts_X, context_XC])


def situation_code_sizes(channels: int, context_sizes: tuple[int, ...]) -> list[int]:
    """Return how many codes each of ``situation_codes`` has."""
    return [channels + 1, WEEKDAYS, PARTS_OF_DAY, *context_sizes]


def odds(log_odds_O: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return odds, kept within what a feature can say."""
    return np.exp(np.clip(log_odds_O, -_LARGEST_LOG, _LARGEST_LOG))
