"""Visits in which an offer could be redeemed: the examples that both levels of offers learn from.

Letters: V visits, O offers, F features, E events, K covered products.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Table
from embeddings.catalogue.columns import Offers
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import REDEMPTION, VISIT_SECONDS, Histories
from embeddings.customer.tower_input import Situation
from embeddings.ranking.acceptance import Exposures
from embeddings.ranking.features import RANKER_FEATURES, FeatureReader
from embeddings.ranking.offer_features import OfferFeatureReader
from embeddings.ranking.profile import profile_of
from embeddings.ranking.redemption import VISIT_FEATURES, VisitFeatureReader, is_of_visit
from embeddings.ranking.sources import RankingQuery
from training.evaluate import Fitted
from training.examples import Example, customer_vectors
from training.fit_ranker import probabilities
from training.ranker import Rankers
from training.statistics import redeemed_offers

_AT_ONCE = 256
_NONE = np.zeros(0, np.int64)


class Visit(NamedTuple):
    """One visit of a customer while some offer ran for them.

    Attributes:
        customer: row of the customer.
        at: when it began, in seconds since 1970 UTC.
        location, channel: row and code; no location is -1.
        context: what its first event says of the situation, as codes.
        redeemed: rows of the offers redeemed in it, or accepted after they were shown in it.
        weight: how many visits it stands for.
        shown: rows of the offers shown in it; empty of a visit that is looked at for what was redeemed.
    """

    customer: int
    at: int
    location: int
    channel: int
    context: tuple[int, ...]
    redeemed: frozenset[int]
    weight: float
    shown: frozenset[int] = frozenset()


class VisitExample(NamedTuple):
    """The offers that were eligible or shown in a visit, and those of them that were redeemed.

    Attributes:
        features_OF: float32, of the offers.
        taken_O: float32, 1 for what was redeemed.
        features_F: float32, of the visit; its sum of odds is 0, as that is the ranker's of offers to say. All are 0
            where it is said what was shown: there the ranker of offers alone is learnt.
    """

    visit: Visit
    features_OF: NDArray[np.float32]
    taken_O: NDArray[np.float32]
    features_F: NDArray[np.float32]


def find_visits(past: Histories, offers: Offers, window: int, most: int, seed: int) -> list[Visit]:
    """Return visits while some offer ran for the customer, in the order of time.

    Every visit in which something was redeemed is among them. Of the others before the moment at most ``most`` are
    drawn at random, and at most as many of those from it on, so that each stands for several.

    Args:
        past: histories.
        offers: of the catalogue.
        window: the moment, in seconds since 1970 UTC.
        most: how many.
        seed: of the draw.
    """
    kept_E = is_of_visit(past.events)
    events = past.events[kept_E]
    if not len(events):
        return []
    owners_E = np.repeat(np.arange(len(past.customers)), np.diff(past.offsets))[kept_E]
    first_E = np.ones(len(events), np.bool_)
    first_E[1:] = (owners_E[1:] != owners_E[:-1]) | (np.diff(events["at"]) > VISIT_SECONDS)
    starts_V = np.flatnonzero(first_E)
    owners_V, at_V = owners_E[starts_V], events["at"][starts_V]
    locations_V, channels_V = (_first_known(events[name], starts_V) for name in ("location", "channel"))
    redeemed: dict[int, set[int]] = {}
    taken_E = (events["type"] == REDEMPTION) & (events["offer"] >= 0)
    for visit, offer in zip((np.cumsum(first_E) - 1)[taken_E].tolist(), events["offer"][taken_E].tolist(), strict=True):
        redeemed.setdefault(visit, set()).add(offer)

    reader, offered_V = VisitFeatureReader(offers), np.zeros(len(starts_V), np.bool_)
    bounds = owners_V.searchsorted(np.arange(len(past.customers) + 1))
    for customer, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        offered_V[begin:end] = reader.offered(tuple(past.audiences[customer].tolist()), at_V[begin:end])
    offered_V &= channels_V >= 0
    weights_V = np.zeros(len(starts_V))
    weights_V[[visit for visit in redeemed if offered_V[visit]]] = 1
    random = np.random.default_rng(seed)
    for part_V in (at_V < window, at_V >= window):
        others = np.flatnonzero(offered_V & part_V & (weights_V == 0))
        if len(others):
            drawn = random.permutation(others)[:most]
            weights_V[drawn] = len(others) / len(drawn)
    chosen, firsts_E = np.flatnonzero(weights_V), np.flatnonzero(kept_E)[starts_V]
    chosen = chosen[np.argsort(at_V[chosen], kind="stable")]
    return [
        Visit(
            customer=int(owners_V[visit]),
            at=int(at_V[visit]),
            location=int(locations_V[visit]),
            channel=int(channels_V[visit]),
            context=context,
            redeemed=frozenset(redeemed.get(visit, ())),
            weight=float(weights_V[visit]),
        )
        for visit, context in zip(chosen.tolist(), past.context_of(firsts_E[chosen]), strict=True)
    ]


def find_visits_with_exposures(past: Histories, found: Exposures, most: int, seed: int) -> list[Visit]:
    """Return visits in which offers were shown, in the order of time; one for each situation in which they were.

    Of those in which any was accepted, and of the others, at most so many each are drawn at random, and each stands for
    several.

    Args:
        past: histories.
        found: their exposures.
        most: how many visits of each kind.
        seed: of the draw.
    """
    found = found.some(np.lexsort((found.at_X, found.owners_X)))
    first_X = np.ones(len(found.at_X), np.bool_)
    first_X[1:] = (np.diff(found.owners_X) != 0) | (np.diff(found.at_X) > VISIT_SECONDS)
    # Every exposure keeps its own situation, such as the slot in which the offer was shown.
    first_X[1:] |= np.diff(past.events["channel"][found.places_X]) != 0
    if len(past.context_EX):
        first_X[1:] |= (np.diff(past.context_EX[found.places_X], axis=0) != 0).any(axis=1)
    visits_X, starts_V = np.cumsum(first_X) - 1, np.flatnonzero(first_X)
    accepting_V = np.bincount(visits_X, found.accepted_X, len(starts_V)) > 0
    weights_V = np.zeros(len(starts_V))
    random = np.random.default_rng(seed)
    for kind_V in (np.flatnonzero(accepting_V), np.flatnonzero(~accepting_V)):
        drawn = random.permutation(kind_V)[:most]
        weights_V[drawn] = len(kind_V) / max(len(drawn), 1)
    chosen = np.flatnonzero(weights_V)
    chosen = chosen[np.argsort(found.at_X[starts_V[chosen]], kind="stable")]
    begins_V, ends_V = (visits_X.searchsorted(chosen, side=side).tolist() for side in ("left", "right"))
    firsts_E = found.places_X[starts_V[chosen]]
    visits: list[Visit] = []
    for visit, begin, end, first, context in zip(
        chosen.tolist(), begins_V, ends_V, past.events[firsts_E], past.context_of(firsts_E), strict=True
    ):
        offers = found.rows_X[begin:end]
        visits.append(
            Visit(
                customer=int(found.owners_X[begin]),
                at=int(found.at_X[begin]),
                location=int(first["location"]),
                channel=int(first["channel"]),
                context=context,
                redeemed=frozenset(offers[found.accepted_X[begin:end]].tolist()),
                weight=float(weights_V[visit]),
                shown=frozenset(offers.tolist()),
            )
        )
    return visits


def visit_examples(
    visits: Sequence[Visit], past: Histories, seen: Fitted, rankers: Rankers, length: int
) -> list[VisitExample]:
    """Return the offers of some visits and what was redeemed of them, with features of earlier events alone.

    They are the offers that were shown, or all that were eligible where it is not said what was shown. Visits in which
    no offer was eligible are left out, and those of customers without a history in which none was shown. Redemptions by
    everybody are counted up to the very moment of the visit: in service they are counted as they happen, too.

    Args:
        visits: in the order of time.
        past: histories, which may go on after the visits.
        seen: towers, and statistics counted before the visits.
        rankers: of products.
        length: how many events the customer tower reads.
    """
    found: list[VisitExample] = []
    redeemed_E = redeemed_offers(past)
    redeemed_O, counted = np.zeros(len(seen.catalogue.offers.ids), np.float32), 0
    offers, reader = OfferFeatureReader(seen.catalogue, seen.statistics), VisitFeatureReader(seen.catalogue.offers)
    for one in _asked(visits, past, seen, rankers, length):
        now = int(redeemed_E["at"].searchsorted(one.visit.at))
        np.add.at(redeemed_O, redeemed_E["offer"][counted:now], 1)
        counted = now
        rows_O = one.query.eligible.rows_N
        features_OF = offers.read(one.query, rows_O, one.covered_K, one.probabilities_K, redeemed_O)
        taken_O = np.isin(rows_O, list(one.visit.redeemed)).astype(np.float32)
        features_F = np.zeros(len(VISIT_FEATURES), np.float32)
        if not one.visit.shown:
            features_F = reader.read(one.query, features_OF, 0.0)
        found.append(VisitExample(one.visit, features_OF, taken_O, features_F))
    return found


class _QueriedVisit(NamedTuple):
    """A visit with the query and the covered products that the feature readers take."""

    visit: Visit
    query: RankingQuery
    covered_K: NDArray[np.int64]
    probabilities_K: NDArray[np.float32]


def _asked(
    visits: Sequence[Visit], past: Histories, seen: Fitted, rankers: Rankers, length: int
) -> Iterator[_QueriedVisit]:
    """Yield the visits in which any offer was eligible, and either one was shown or the customer has a history."""
    catalogue, statistics, towers, vectors_ND = seen
    eligibility = Eligibility(catalogue)
    vectors = Table.of(vectors_ND)
    features = FeatureReader(catalogue.promotions, statistics, vectors)
    offers = OfferFeatureReader(catalogue, statistics)
    examples = [_example(one, past, eligibility, list(catalogue.channels)) for one in visits]
    pairs = [
        (visit, example)
        for visit, example in zip(visits, examples, strict=True)
        if (visit.shown or example.past.has_interactions) and example.eligible.size
    ]
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        customers_BD = customer_vectors([example for _, example in some], towers, vectors_ND, length)
        queries_B = [
            RankingQuery.of(
                profile_of(example.past.purchases, statistics),
                example.past,
                statistics.bought_together,
                example.situation,
                example.eligible,
                _NONE,
                _NONE,
            )
            for _, example in some
        ]
        covered = [
            offers.covered(query, features, vectors, customer_D)
            for query, customer_D in zip(queries_B, customers_BD, strict=True)
        ]
        features_MF = np.concatenate([features_KF for _, features_KF in covered]).reshape(-1, len(RANKER_FEATURES))
        ends = np.cumsum([len(rows_K) for rows_K, _ in covered])[:-1]
        likely = np.split(probabilities(rankers.regular, features_MF), ends)  # all of it was bought
        for (visit, _), query, (rows_K, _), likely_K in zip(some, queries_B, covered, likely, strict=True):
            yield _QueriedVisit(visit, query, rows_K, likely_K)


def _example(visit: Visit, past: Histories, eligibility: Eligibility, channels: Sequence[str]) -> Example:
    earlier = past[visit.customer].before(visit.at)
    place = Place((visit.location,) if visit.location >= 0 else None)
    if visit.shown:
        eligible = EligibleSet.of(np.array(sorted(visit.shown), np.int32), FOREVER)
    else:
        eligible = eligibility.offers(
            Context(channels[visit.channel]), place, visit.at, earlier.audiences, earlier.redeemed_R
        )
    situation = Situation(visit.channel, visit.location, visit.at, visit.context).at(place, earlier.purchases)
    return Example(visit.customer, earlier, situation, place, eligible, visit.redeemed)


def _first_known(codes_E: NDArray[np.integer], starts_V: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first code of each visit that is not -1; -1 where all are."""
    nowhere = len(codes_E)
    places_V = np.minimum.reduceat(np.where(codes_E >= 0, np.arange(nowhere), nowhere), starts_V)
    return np.append(codes_E, -1)[places_V].astype(np.int64)
