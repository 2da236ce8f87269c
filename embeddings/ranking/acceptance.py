"""How likely offers are accepted when they are shown, by what was shown, accepted and refused before.

Letters: X exposures, E events, O offers, F fields, V values of all fields.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from embeddings.customer.history import DISMISSAL, IMPRESSION, REDEMPTION, VISIT_SECONDS, Events
from embeddings.customer.tower_input import WEEKDAYS, Situation, hour_of, weekday_of

ACCEPTED_WITHIN = 7 * 86_400
"""A redemption accepts the newest exposure of its offer to its customer that is at most so many seconds old."""

PARTS_OF_DAY = 6
"""Of four hours each."""

_LARGEST_LOG = 12.0


class Exposures(NamedTuple):
    """Offers that were shown: one exposure for all impressions and dismissals of an offer within a visit.

    Attributes:
        owners_X: int64, to which customer.
        offers_X: int64, rows of the offers.
        places_X: int64, place of the first event among all events given.
        at_X: int64, its moment.
        redeemed_X: int64, when the customer redeemed the offer, within `ACCEPTED_WITHIN` and before it was shown again;
            0 for what was refused.
    """

    owners_X: NDArray[np.int64]
    offers_X: NDArray[np.int64]
    places_X: NDArray[np.int64]
    at_X: NDArray[np.int64]
    redeemed_X: NDArray[np.int64]

    @property
    def accepted_X(self) -> NDArray[np.bool_]:
        """Return which of them were accepted."""
        return self.redeemed_X > 0

    def before(self, moment: int) -> Self:
        """Return what was shown before a moment; what was redeemed from then on was not yet."""
        redeemed_X = np.where(self.redeemed_X < moment, self.redeemed_X, 0)
        kept_X = self.at_X < moment
        return type(self)(*(column[kept_X] for column in self._replace(redeemed_X=redeemed_X)))


def find_exposures(events_E: Events, owners_E: NDArray[np.int64]) -> Exposures:
    """Return the exposures of known offers, by customer, offer and time.

    Args:
        events_E: of some customers.
        owners_E: to whom each belongs.
    """
    redeemed_E = events_E["type"] == REDEMPTION
    shown_E = (events_E["type"] == IMPRESSION) | (events_E["type"] == DISMISSAL)
    places_E = np.flatnonzero((shown_E | redeemed_E) & (events_E["offer"] >= 0))
    some, owners = events_E[places_E], owners_E[places_E]
    order = np.lexsort((redeemed_E[places_E], some["at"], some["offer"], owners))
    some, owners, places_E = some[order], owners[order], places_E[order]
    offers, at, shown = some["offer"].astype(np.int64), some["at"], shown_E[places_E]
    begins = np.zeros(len(some), np.bool_)
    shown_S = np.flatnonzero(shown)
    other_S = np.ones(len(shown_S), np.bool_)
    other_S[1:] = (np.diff(owners[shown_S]) != 0) | (np.diff(offers[shown_S]) != 0)
    other_S[1:] |= np.diff(at[shown_S]) > VISIT_SECONDS
    begins[shown_S[other_S]] = True
    first_X = np.flatnonzero(begins)
    redeemed_X = np.zeros(len(first_X), np.int64)
    if len(first_X):
        of = np.cumsum(begins) - 1
        newest = first_X[np.maximum(of, 0)]
        follows = ~shown & (of >= 0) & (owners == owners[newest]) & (offers == offers[newest])
        follows &= at - at[newest] <= ACCEPTED_WITHIN
        redeemed_X[of[follows][::-1]] = at[follows][::-1]  # of several redemptions the first
    return Exposures(owners[first_X], offers[first_X], places_E[first_X], at[first_X], redeemed_X)


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
    """

    log_odds_O: NDArray[np.float32]
    unseen: NDArray[np.float32]
    evidence_OV: NDArray[np.float32]
    offsets_F: NDArray[np.int64]
    of_customer: NDArray[np.int64]

    @classmethod
    def none(cls) -> Self:
        """Return what is known where nothing is."""
        nothing = np.zeros(0, np.float32)
        return cls(nothing, np.zeros(1, np.float32), nothing[:, None], np.zeros(1, np.int64), np.zeros(1, np.int64))

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


def situation_codes(situation: Situation) -> list[int]:
    """Return the codes of a situation's fields: channel, weekday, part of the day, and its context attributes."""
    moment = situation.moment
    part = int(hour_of(moment)) * PARTS_OF_DAY // 24
    return [situation.channel + 1, weekday_of(moment), part, *situation.attributes]


def situation_code_sizes(channels: int, context_sizes: tuple[int, ...]) -> list[int]:
    """Return how many codes each of ``situation_codes`` has."""
    return [channels + 1, WEEKDAYS, PARTS_OF_DAY, *context_sizes]


def odds(log_odds_O: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return odds, kept within what a feature can say."""
    return np.exp(np.clip(log_odds_O, -_LARGEST_LOG, _LARGEST_LOG))
