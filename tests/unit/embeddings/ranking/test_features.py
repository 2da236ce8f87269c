"""What the ranker reads, every column recomputed from the small catalogue one product at a time."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings.arrays import Table
from embeddings.customer.history import EVENT_CODES
from embeddings.ranking.features import COUNTED, RANKER_FEATURES, FeatureReader, is_regular
from embeddings.ranking.profile import GROUP, OWN
from embeddings.ranking.sources import RETRIEVED, RankingQuery
from embeddings.ranking.statistics import GROUPINGS, HAZARD_DAYS, PRODUCT_STATISTICS
from tests.unit.embeddings.small import (
    ALIKE,
    DAY,
    NOW,
    PROMOTED,
    TOGETHER,
    VECTORS,
    D,
    N,
    ask,
    catalogue,
    past,
    statistics,
)

HOUR = 1 / 24
CUSTOMER = np.array([0.5, -1.0, 2.0], np.float32)
RETRIEVED_INNER = np.array([3.0, 1.5, -2.0, -np.inf], np.float32)

PASTS = {
    "nothing": [],
    "looks alone": [
        ("view", 3, HOUR, 0),
        ("dismissal", 2, 4.0, 0),
        *(("impression", 2, days, 0) for days in (HOUR / 4, 4.0, 5.0, 31.0)),
        ("impression", 8, 6.0, 0),
    ],
    "one purchase": [("purchase", 4, 2.5, 0)],
    "a rhythm": [("purchase", 4, 5.0 * week, week % 2) for week in range(6)] + [("purchase", 0, 30.0, -1)],
    "a visit": [
        ("purchase", 1, 9.0, 1),
        ("purchase", 6, 3.0, 0),
        ("add_to_cart", 2, HOUR, 0),
        ("add_to_cart", 5, 2 * HOUR, 0),
        ("click", 7, HOUR, 0),
        ("dismissal", 9, HOUR, 0),
    ],
}
SITUATIONS = [(-1, NOW), (0, NOW - 1), (0, NOW), (0, NOW + DAY), (1, NOW - 1), (2, NOW + 3 * 3_600 + 1_234)]


def read(
    query: RankingQuery, rows: Sequence[int] = range(N), inner: NDArray[np.float32] = RETRIEVED_INNER
) -> NDArray[np.float32]:
    features_KF = np.full((len(rows), len(RANKER_FEATURES)), np.nan, np.float32)
    FeatureReader(catalogue().promotions, statistics(), Table.of(VECTORS)).read(
        query, np.array(rows, np.int64), CUSTOMER, inner, features_KF
    )
    return features_KF


WIDE = GROUPINGS.index("category")


def hazards(row: int, features: dict[str, float]) -> dict[str, float]:
    """How likely who bought the product so long ago buys it again."""
    if not features["own_times"]:
        return {"own_hazard": 0.0, "type_hazard": 0.0}
    figures = statistics()
    span = sum(end < features["own_since"] + features["away"] for end in HAZARD_DAYS)
    code = int(figures.groups_NQ.base[row, 0])
    of_type = figures.hazards_GH[code if code < len(figures.hazards_GH) else 0, span]
    return {"own_hazard": float(figures.hazards_NH.base[row, span]), "type_hazard": float(of_type)}


def shown_lately(query: RankingQuery, row: int) -> int:
    """How often the product was shown in the last 30 days."""
    moment = query.situation.moment
    return sum(
        kind == EVENT_CODES["impression"] and product == row and moment - 30 * DAY < at
        for kind, product, at in query.history.events_E[["type", "product", "at"]].tolist()
    )


def slow_features(query: RankingQuery, row: int) -> dict[str, float]:
    """The features of one product, in no hurry."""
    figures, profile, session = statistics(), query.profile, query.session
    bought = profile.rows_R.tolist()
    own = profile.own_RC[bought.index(row) if row in bought else -1].tolist()
    features = {f"own_{name}": value for name, value in zip(OWN, own, strict=True)}
    features["own_here"] = float(query.local.slow_R[bought.index(row)]) if row in bought else 0.0
    hour = profile.at_hour(query.situation.moment)
    features["own_hour"] = float(hour.slow_R[bought.index(row)]) if row in bought else 0.0
    for number, (group, name) in enumerate(zip(profile.groups, GROUPINGS, strict=True)):
        codes, code = group.codes_G.tolist(), int(figures.groups_NQ.base[row, number])
        values = group.statistics_GC[codes.index(code) if code in codes else -1].tolist()
        features |= {f"{name}_{column}": value for column, value in zip(GROUP, values, strict=True)}
    features |= {
        f"product_{name}": float(figures.products_NP.base[row, place]) for place, name in enumerate(PRODUCT_STATISTICS)
    }
    if row not in bought:
        features |= {f"own_{name}": features[f"product_{name}"] for name in ("gap", "price")}

    observed = figures.observed
    features |= {"popular_here": 0.0, "month_here": 0.0, "sold_here": 0.0, "promoted": 0.0}
    if query.situation.location >= 0:
        number = int(observed.lists_M[query.situation.location])
        for place in range(*observed.sold.offsets[number : number + 2]) if number >= 0 else ():
            features["sold_here"] += float(observed.popularity_L[place])
            if observed.sold.values[place] == row:
                features["popular_here"] = float(observed.popularity_L[place])
                features["month_here"] = float(figures.month_L[place])
        for location, starts, ends, rows in PROMOTED:
            if location == query.situation.location and starts <= query.situation.moment < ends and row in rows:
                features["promoted"] = 1.0

    near = dict(zip(*(one.tolist() for one in profile.also_bought), strict=True))
    assert set(near) == {other for one in bought for other, _ in ALIKE[one]}
    away = max(query.situation.moment - profile.newest, 0) / DAY if bought else 0.0
    features |= {"visits": profile.visits, "basket_size": profile.basket_size, "visit_gap": profile.visit_gap}
    features |= {"visits_here": query.local.visits, "away": away, "also_bought": near.get(row, 0.0)}
    features |= hazards(row, features)
    features |= {"visits_hour": hour.visits, "basket_size_hour": hour.basket_size}
    placed = query.situation.placed and query.situation.location >= 0
    features |= {"novel": float(query.novel), "placed": float(placed), "ahead": float(query.situation.ahead)}
    features["retrieved"] = math.log(math.exp(3) + math.exp(1.5) + math.exp(-2))
    when = datetime.fromtimestamp(query.situation.moment, UTC)
    features |= {f"weekday_{number}": float(when.weekday() == number) for number in range(7)}
    turn = (when.hour + when.minute / 60 + when.second / 3_600) / 24 * 2 * math.pi
    features |= {"hour_sine": math.sin(turn), "hour_cosine": math.cos(turn)}
    features["shown"] = math.log1p(shown_lately(query, row))
    features["inner"] = sum(float(VECTORS[row, place]) * float(CUSTOMER[place]) for place in range(D))
    features["als"] = float(np.dot(figures.als.products_ND.base[row].astype(float), profile.als_D.astype(float)))

    cart = [] if session is None else session.cart.tolist()
    looked = [] if session is None else session.looked.tolist()
    meant, codes = [*cart, *looked], figures.groups_NQ.base
    features |= {"in_cart": float(len(cart)), "looked": float(row in looked)}
    features["bought_together"] = sum(weight for one in meant for other, weight in TOGETHER[one] if other == row)
    lifts = [float(figures.lifts_GG[codes[one, WIDE], codes[row, WIDE]]) for one in meant]
    features["goes_with"] = sum(lifts) / len(lifts) if lifts else 0.0
    for number, name in enumerate(GROUPINGS):
        mine = int(codes[row, number])
        features[f"same_{name}"] = float(mine > 0 and mine in [int(codes[one, number]) for one in meant])
    return features


def test_names_are_unique_and_the_counted_ones_come_first():
    assert len(set(RANKER_FEATURES)) == len(RANKER_FEATURES)
    assert {"own_times", "away", "visits", "in_cart", "product_share"} <= set(RANKER_FEATURES[:COUNTED])
    assert {"inner", "retrieved", "hour_sine", "promoted", "looked"} <= set(RANKER_FEATURES[COUNTED:])


@pytest.mark.parametrize("who", PASTS)
@pytest.mark.parametrize(("location", "moment"), SITUATIONS)
@pytest.mark.parametrize("novel", [False, True])
@pytest.mark.parametrize(("placed", "ahead"), [(True, False), (False, False), (False, True)])
def test_every_feature_is_what_recomputing_it_gives(
    who: str, location: int, moment: int, novel: bool, placed: bool, ahead: bool
):
    query = ask(past(*PASTS[who]), location, moment, novel=novel, placed=placed, ahead=ahead)
    for row, features in enumerate(read(query).tolist()):
        expected = slow_features(query, row)
        assert set(expected) == set(RANKER_FEATURES)
        found = dict(zip(RANKER_FEATURES, features, strict=True))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), row


def test_each_feature_is_not_the_same_everywhere():
    """Else the oracle could agree by saying nothing."""
    parts = [
        read(ask(past(*events), location, moment, novel=novel, ahead=novel))
        for events in PASTS.values()
        for location, moment in [*SITUATIONS, *((0, NOW + day * DAY) for day in range(7))]
        for novel in (False, True)
    ]
    spans = np.ptp(np.concatenate(parts), axis=0)
    assert {name for name, span in zip(RANKER_FEATURES, spans.tolist(), strict=True) if span == 0} == {"retrieved"}


@pytest.mark.parametrize("who", PASTS)
def test_what_else_is_asked_and_in_which_order_does_not_matter(who: str):
    """To the bit, but for inner products: BLAS adds those up in an order that depends on how many there are."""
    query = ask(past(*PASTS[who]), 0)
    whole = read(query)
    exact = [place for place, name in enumerate(RANKER_FEATURES) if name not in ("inner", "als")]
    for rows in (np.random.default_rng(0).permutation(N).tolist(), [5, 2], *([row] for row in range(N))):
        found = read(query, rows)
        assert found[:, exact].tobytes() == whole[rows][:, exact].tobytes()
        np.testing.assert_allclose(found, whole[rows], rtol=1e-6, atol=1e-6)
    assert read(query, []).shape == (0, len(RANKER_FEATURES))


def test_nothing_is_left_of_what_lay_in_the_memory_before():
    query = ask(past(*PASTS["nothing"]))
    assert np.isfinite(read(query)).all()


def test_a_reader_remembers_nothing_of_whom_it_read_before():
    reader = FeatureReader(catalogue().promotions, statistics(), Table.of(VECTORS))

    def features(who: str, location: int, moment: int) -> bytes:
        features_KF = np.empty((N, len(RANKER_FEATURES)), np.float32)
        query = ask(past(*PASTS[who]), location, moment)
        reader.read(query, np.arange(N), CUSTOMER, RETRIEVED_INNER, features_KF)
        return features_KF.tobytes()

    first = [features(who, location, moment) for who in PASTS for location, moment in SITUATIONS]
    second = [features(who, location, moment) for who in reversed(PASTS) for location, moment in reversed(SITUATIONS)]
    assert second[::-1] == first


def test_how_many_more_were_retrieved_changes_nothing():
    query = ask(past(*PASTS["a rhythm"]))
    some = -np.sort(np.random.default_rng(1).standard_normal(3 * RETRIEVED).astype(np.float32))
    assert read(query, inner=some).tobytes() == read(query, inner=some[:RETRIEVED]).tobytes()
    assert read(query, inner=some[: RETRIEVED - 1]).tobytes() != read(query, inner=some[:RETRIEVED]).tobytes()


@pytest.mark.parametrize("inner", [[], [-np.inf, -np.inf]])
def test_without_anything_retrieved_there_is_no_sum(inner: list[float]):
    found = read(ask(past()), inner=np.array(inner, np.float32))
    assert not found[:, RANKER_FEATURES.index("retrieved")].any()


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_the_sum_of_what_was_retrieved_survives_large_inner_products(scale: float):
    inner = -np.sort(np.array([1, 0.5, 0.999], np.float32) * np.float32(-scale))
    found = read(ask(past()), inner=inner)[0, RANKER_FEATURES.index("retrieved")]
    assert found == pytest.approx(float(np.logaddexp.reduce(inner.astype(np.float64))), rel=1e-6)


def test_a_purchase_still_to_come_is_not_a_negative_time_away():
    query = ask(past(("purchase", 1, -3.0, 0)))
    assert read(query)[0, RANKER_FEATURES.index("away")] == 0


def test_regular_customers_are_judged_apart_unless_they_ask_for_what_is_new():
    buys, looks = past(*PASTS["a rhythm"]), past(*PASTS["looks alone"])
    assert is_regular(ask(buys), read(ask(buys))).all()
    for query in (ask(buys, novel=True), ask(looks), ask(past())):
        assert not is_regular(query, read(query)).any()
    named = ask(buys, rank_all=True)
    features_KF = read(named)
    features_KF[3, RANKER_FEATURES.index("product_buyers")] = 0
    assert np.flatnonzero(~is_regular(named, features_KF)).tolist() == [3]  # what nobody has bought
