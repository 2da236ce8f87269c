"""Counts how often offers were accepted when they were shown; see `embeddings.ranking.acceptance`.

Letters: X exposures, O offers, V values of all fields, F fields.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue
from embeddings.customer.history import REDEMPTION, Histories
from embeddings.ranking.acceptance import (
    Acceptance,
    Exposures,
    find_exposures,
    situation_code_sizes,
    situation_codes,
)

_PRIOR_SHOWN, _PRIOR_ACCEPTED = 20.0, 1.0
"""What all offers together are smoothed by; a value of a field and an offer by as many of the wider kind."""

_MOST_VALUES = 1_000
"""A field with more values than this says nothing: it would rather name single customers."""


_COVERED = 0.5
"""The least share of redemptions that follow an exposure where exposures are learnt from."""

FEWEST = 50
"""So many accepted and so many refused exposures are needed to learn from."""


def is_enough(found: Exposures) -> bool:
    """Return whether there are enough exposures to learn from."""
    accepted = int(found.accepted_X.sum())
    return min(accepted, len(found.accepted_X) - accepted) >= FEWEST


def covers_redemptions(past: Histories, found: Exposures) -> bool:
    """Return whether most redemptions, from the first exposure on, are of what was shown before.

    Otherwise offers are redeemed where nobody logs what is shown, and what is logged says nothing of them.
    """
    events = past.events
    redeemed_E = (
        (events["type"] == REDEMPTION) & (events["offer"] >= 0) & (events["at"] >= found.at_X.min(initial=2**62))
    )
    return int(found.accepted_X.sum()) >= _COVERED * int(redeemed_E.sum())


def exposures_of(past: Histories, of: Literal["offer", "product"]) -> Exposures:
    """Return everybody's exposures of offers or of products."""
    return find_exposures(past.events, np.repeat(np.arange(len(past.customers)), np.diff(past.offsets)), of)


def count_acceptance(past: Histories, found: Exposures, catalogue: Catalogue, until: int) -> Acceptance:
    """Return how likely each offer of a catalogue is accepted, by some exposures of a past.

    Shares are smoothed: those of offers towards all offers, those of a value towards all customers, those of an offer
    and a value towards what both say alone.

    Args:
        past: the histories that the exposures were found in, which may go on after them.
        found: exposures.
        catalogue: holds the offers.
        until: the moment before which they were shown, in seconds since 1970 UTC.
    """
    found = found.ripe(until)
    offers = len(catalogue.offers.ids)
    sizes = [*past.attribute_sizes, *situation_code_sizes(len(catalogue.channels), catalogue.context.sizes)]
    sizes = [size if size <= _MOST_VALUES else 1 for size in sizes]
    offsets_F = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    accepted_X = found.accepted_X.astype(np.float64)
    overall = (accepted_X.sum() + _PRIOR_ACCEPTED) / (len(accepted_X) + _PRIOR_SHOWN)
    shown_O = np.bincount(found.rows_X, minlength=offers)
    accepted_O = np.bincount(found.rows_X, accepted_X, offers)
    log_odds_O = _logit(smoothed(accepted_O, shown_O, overall))
    evidence_OV = np.zeros((offers, int(offsets_F[-1])), np.float32)
    for codes_X, begin, size in zip(_codes(past, found).T, offsets_F[:-1].tolist(), sizes, strict=True):
        if size == 1:
            continue
        shown_V = np.bincount(codes_X, minlength=size)
        accepted_V = np.bincount(codes_X, accepted_X, size)
        main_V = _logit(smoothed(accepted_V, shown_V, overall)) - _logit(overall)
        pairs_X = found.rows_X * size + codes_X
        shown_OV = np.bincount(pairs_X, minlength=offers * size).reshape(offers, size)
        accepted_OV = np.bincount(pairs_X, accepted_X, offers * size).reshape(offers, size)
        expected_OV = 1 / (1 + np.exp(-(log_odds_O[:, None] + main_V)))
        both_OV = smoothed(accepted_OV, shown_OV, expected_OV)
        evidence_OV[:, begin : begin + size] = _logit(both_OV) - log_odds_O[:, None]
    return Acceptance(
        log_odds_O.astype(np.float32),
        np.array([_logit(overall)], np.float32),
        evidence_OV,
        offsets_F,
        np.array([len(past.attribute_sizes)], np.int64),
        np.array([until], np.int64),
    )


def smoothed(
    accepted: NDArray[Any], shown: NDArray[np.integer], towards: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Return the shares of what was shown that were accepted, as if some more had been accepted as often as said."""
    return (accepted + _PRIOR_SHOWN * towards) / (shown + _PRIOR_SHOWN)


def _codes(past: Histories, found: Exposures) -> NDArray[np.int64]:
    """Return the code of each field (X, F)."""
    context_EX = past.context_EX if len(past.context_EX) else np.zeros((len(past.events), 0), np.int32)
    channels_X = past.events["channel"][found.places_X].astype(np.int64)
    situation_XF = situation_codes(channels_X, found.at_X, context_EX[found.places_X].astype(np.int64))
    return np.concatenate([past.attributes_CA[found.owners_X].astype(np.int64), situation_XF], axis=1)


def _logit(share: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.log(share / (1 - np.asarray(share)))
