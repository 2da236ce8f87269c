"""A catalogue of ten products with figures of every kind, small enough to recompute anything about it by hand."""

from collections.abc import Sequence

import numpy as np

from embeddings.arrays import Ragged, Table
from embeddings.catalogue.columns import (
    SOLD,
    Attributes,
    Catalogue,
    ChannelRule,
    Locations,
    Offers,
    Products,
    Promotions,
)
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import EVENT, EVENT_CODES, Events, History
from embeddings.customer.tower_input import Situation
from embeddings.ranking.observed import Observed
from embeddings.ranking.profile import profile_of
from embeddings.ranking.sources import RankingQuery
from embeddings.ranking.statistics import GROUPINGS, HAZARD_DAYS, PRODUCT_STATISTICS, AlsFactors, Neighbours, Statistics
from embeddings.vocabulary import Vocabulary

DAY = 86_400
NOW = 1_750_000_000
N, D = 10, 3
LOCATIONS = 3

_random = np.random.default_rng(3)
VECTORS = _random.standard_normal((N, D)).astype(np.float32)


def neighbours(near: Sequence[Sequence[tuple[int, float]]], most: int = 3) -> Neighbours:
    """Each product's neighbours as (row, weight), the nearest first."""
    rows_NT, weights_NT = np.full((len(near), most), -1, np.int32), np.zeros((len(near), most), np.float32)
    for row, some in enumerate(near):
        for place, (other, weight) in enumerate(some):
            rows_NT[row, place], weights_NT[row, place] = other, weight
    return Neighbours.of(rows_NT, weights_NT)


ALIKE = [[((row + step) % N, 0.9 / step) for step in (1, 2, 3)[: row % 4]] for row in range(N)]
TOGETHER = [[((row + 2 * step) % N, 0.5 / step) for step in (1, 2)[: row % 3]] for row in range(N)]

# No group is known of product 0 and of nobody's last one.
RHYTHM_CODES = np.stack(
    [(np.arange(N) % (3 + number)) * (np.arange(N) > 0) for number in range(len(GROUPINGS))], axis=1
)


def statistics() -> Statistics:
    """Figures, groups and neighbours that tell all products apart."""
    figures_NP = np.random.default_rng(5).uniform(1, 50, (N, len(PRODUCT_STATISTICS))).astype(np.float32)
    figures_NP[:, PRODUCT_STATISTICS.index("share")] /= 500
    factors_ND = np.random.default_rng(6).standard_normal((N, 2)).astype(np.float32)
    codes = int(RHYTHM_CODES.max()) + 1
    lifts_GG = np.random.default_rng(7).standard_normal((codes, codes))
    return Statistics(
        products_NP=Table.of(figures_NP),
        unsold_P=np.arange(len(PRODUCT_STATISTICS), dtype=np.float32),
        observed=observed(),
        month_L=np.arange(1, len(SOLD_AT.values) + 1, dtype=np.float32),
        hazards_NH=Table.of(np.random.default_rng(8).random((N, len(HAZARD_DAYS) + 1)).astype(np.float32)),
        hazards_GH=np.random.default_rng(9).random((3, len(HAZARD_DAYS) + 1)).astype(np.float32),
        groups_NQ=Table.of(RHYTHM_CODES.astype(np.int32)),
        attributes=("type", "category", ""),
        also_bought=neighbours(ALIKE),
        bought_together=neighbours(TOGETHER),
        complements=neighbours(TOGETHER),
        together_NT=Table.of(np.ones(neighbours(TOGETHER).rows_NT.whole.shape, np.int32)),
        als=AlsFactors(Table.of(factors_ND), (factors_ND.T @ factors_ND + 0.1 * np.eye(2)).astype(np.float32)),
        lifts_GG=lifts_GG.astype(np.float32),
        redeemed_O=np.zeros(0, np.float32),
    )


SOLD_AT = Ragged.of([[0, 2, 4, 6, 8], [0, 1, 2, 3, 4], [], []])
"""What is sold at each location, and in no region."""


def observed() -> Observed:
    """What is popular: the earlier a product, the more; nothing is sold at location 2."""
    return Observed(
        popularity_N=np.linspace(10, 1, N).astype(np.float32),
        trained_N=np.ones(N, np.bool_),
        sold=SOLD_AT,
        popularity_L=np.linspace(0.5, 9, len(SOLD_AT.values)).astype(np.float32),
        lists_M=np.array([0, 1, -1]),
    )


PROMOTED = [(0, NOW - DAY, NOW, [1, 2]), (0, NOW, NOW + DAY, [2, 3]), (0, NOW - DAY, NOW + DAY, [9]), (1, 0, NOW, [5])]
"""(location, starts, ends, products) of the promotion plan."""


def no_offers() -> Offers:
    """The offers of a catalogue without any."""
    none, nothing = Ragged.of([]), np.zeros(0, np.int64)
    return Offers(
        Vocabulary.of([]),
        np.zeros(0, np.uint8),
        nothing,
        nothing,
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros(0, np.bool_),
        none,
        none,
        none,
    )


def catalogue() -> Catalogue:
    """Location 0 carries the even products, 1 the first five, 2 nothing."""
    assortment = Ragged.of([[0, 2, 4, 6, 8], [0, 1, 2, 3, 4], []])
    return Catalogue(
        channels={"web": ChannelRule.EVERYTHING},
        audiences=(),
        products=Products(
            ids=Vocabulary.of([f"p{row}" for row in range(N)]),
            attributes=Attributes(
                ("type", "category"),
                (("a", "b"), ("x", "y", "z")),
                np.stack([np.arange(N) % 3, np.arange(N) % 4], axis=1).astype(np.int32),
            ),
            price_N=np.ones(N),
            recommendable_N=np.ones(N, np.bool_),
        ),
        locations=Locations(
            ids=Vocabulary.of(["l0", "l1", "l2"]),
            coordinates_M2=np.full((LOCATIONS, 2), np.nan),
            regions=(),
            regions_M=np.zeros(LOCATIONS, np.int32),
            assortment=assortment,
            why_L=np.full(len(assortment.values), SOLD, np.uint8),
            assumed=Ragged.of([[]]),
            unavailable=Ragged.of([[]] * 3),
            withdrawn_M=np.zeros(LOCATIONS, np.bool_),
        ),
        offers=no_offers(),
        promotions=Promotions(
            ids=Vocabulary.of([f"promotion{row}" for row in range(len(PROMOTED))]),
            channels_G=np.zeros(len(PROMOTED), np.int32),
            locations_G=np.array([one[0] for one in PROMOTED], np.int32),
            starts_G=np.array([one[1] for one in PROMOTED]),
            ends_G=np.array([one[2] for one in PROMOTED]),
            products=Ragged.of([one[3] for one in PROMOTED]),
        ),
    )


def events_of(*events: tuple[str, int, float, int]) -> Events:
    """Events as (type, product, days before ``NOW``, location), put in time."""
    events_E = np.zeros(len(events), EVENT)
    events_E["offer"] = -1
    for place, (kind, product, days, location) in enumerate(events):
        events_E[place]["type"], events_E[place]["at"] = EVENT_CODES[kind], NOW - round(days * DAY)
        events_E[place]["product"], events_E[place]["location"] = product, location
    return events_E[np.argsort(events_E["at"], kind="stable")]


def past(*events: tuple[str, int, float, int]) -> History:
    """A history of such events."""
    return History(events_of(*events), np.zeros(0, np.int32), ())


def eligible(rows: Sequence[int]) -> EligibleSet:
    """The set of these rows."""
    return EligibleSet.of(np.array(sorted(rows), np.int32), FOREVER)


def ask(
    history: History,
    location: int = -1,
    moment: int = NOW,
    rows: Sequence[int] = range(N),
    retrieved: Sequence[int] = (),
    popular: Sequence[int] | None = None,
    *,
    novel: bool = False,
    rank_all: bool = False,
    placed: bool = True,
    ahead: bool = False,
) -> RankingQuery:
    """A question to the sources and the reader of features; what is popular are the eligible rows unless given."""
    return RankingQuery.of(
        profile_of(history.purchases, statistics()),
        history,
        neighbours(TOGETHER),
        Situation(-1, location, moment, placed=placed, ahead=ahead),
        eligible(rows),
        np.array(retrieved, np.int64),
        np.array(sorted(rows) if popular is None else popular, np.int64),
        novel=novel,
        rank_all=rank_all,
    )
