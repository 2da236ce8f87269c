"""What the ranker reads, every column recomputed from the small catalogue one product at a time."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings.ranking.features import COUNTED, FACTS, FactsReader
from embeddings.ranking.profile import GROUP, OWN
from embeddings.ranking.sources import RETRIEVED, Asked
from embeddings.ranking.statistics import FIGURES, RHYTHMS
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
    catalog,
    past,
    statistics,
)

HOUR = 1 / 24
CUSTOMER = np.array([0.5, -1.0, 2.0], np.float32)
RETRIEVED_INNER = np.array([3.0, 1.5, -2.0, -np.inf], np.float32)

PASTS = {
    "nothing": [],
    "looks alone": [("view", 3, HOUR, 0), ("dismissal", 2, 4.0, 0)],
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
    asked: Asked, rows: Sequence[int] = range(N), inner: NDArray[np.float32] = RETRIEVED_INNER
) -> NDArray[np.float32]:
    facts_KF = np.full((len(rows), len(FACTS)), np.nan, np.float32)
    FactsReader(catalog(), statistics(), VECTORS).read(asked, np.array(rows, np.int64), CUSTOMER, inner, facts_KF)
    return facts_KF


def slow_facts(asked: Asked, row: int) -> dict[str, float]:
    """The facts of one product, in no hurry."""
    known, figures, profile, session = catalog(), statistics(), asked.profile, asked.session
    bought = profile.rows_R.tolist()
    own = profile.own_RC[bought.index(row) if row in bought else -1].tolist()
    facts = {f"own_{name}": value for name, value in zip(OWN, own, strict=True)}
    facts["own_here"] = float(asked.local.slow_R[bought.index(row)]) if row in bought else 0.0
    hour = profile.at_hour(asked.moment)
    facts["own_hour"] = float(hour.slow_R[bought.index(row)]) if row in bought else 0.0
    for number, (group, name) in enumerate(zip(profile.groups, RHYTHMS, strict=True)):
        codes, code = group.codes_G.tolist(), int(figures.rhythms_NQ[row, number])
        values = group.figures_GC[codes.index(code) if code in codes else -1].tolist()
        facts |= {f"{name}_{column}": value for column, value in zip(GROUP, values, strict=True)}
    facts |= {f"product_{name}": float(figures.products_NP[row, place]) for place, name in enumerate(FIGURES)}
    if row not in bought:
        facts["own_gap"] = facts["product_gap"]

    offsets, carried = known.locations.assortment.offsets, known.locations.assortment.values.tolist()
    facts |= {"popular_here": 0.0, "month_here": 0.0, "sold_here": 0.0, "promoted": 0.0}
    if asked.location >= 0:
        begin, end = offsets[asked.location], offsets[asked.location + 1]
        for place in range(begin, end):
            facts["sold_here"] += float(known.locations.popularity[place])
            if carried[place] == row:
                facts["popular_here"] = float(known.locations.popularity[place])
                facts["month_here"] = float(figures.local_L[place])
        for location, starts, ends, rows in PROMOTED:
            if location == asked.location and starts <= asked.moment < ends and row in rows:
                facts["promoted"] = 1.0

    near = dict(zip(*(one.tolist() for one in profile.alike), strict=True))
    assert set(near) == {other for one in bought for other, _ in ALIKE[one]}
    facts["alike"] = near.get(row, 0.0)
    facts["away"] = max(asked.moment - profile.newest, 0) / DAY if bought else 0.0
    facts |= {"visits": profile.visits, "lines": profile.lines, "visit_gap": profile.visit_gap}
    facts["visits_here"] = asked.local.visits
    facts |= {"visits_hour": hour.visits, "lines_hour": hour.lines}
    facts["novel"] = float(asked.novel)
    facts["retrieved"] = math.log(math.exp(3) + math.exp(1.5) + math.exp(-2))
    when = datetime.fromtimestamp(asked.moment, UTC)
    facts |= {f"weekday_{number}": float(when.weekday() == number) for number in range(7)}
    turn = (when.hour + when.minute / 60 + when.second / 3_600) / 24 * 2 * math.pi
    facts |= {"hour_sine": math.sin(turn), "hour_cosine": math.cos(turn)}
    facts["inner"] = sum(float(VECTORS[row, place]) * float(CUSTOMER[place]) for place in range(D))
    facts["taste"] = float(np.dot(figures.tastes.products_ND[row].astype(float), profile.taste_D.astype(float)))

    cart = [] if session is None else session.cart.tolist()
    looked = [] if session is None else session.looked.tolist()
    meant, codes = [*cart, *looked], figures.rhythms_NQ
    facts["in_cart"] = float(len(cart))
    facts["looked"] = float(row in looked)
    facts["together"] = sum(weight for one in meant for other, weight in TOGETHER[one] if other == row)
    wide = RHYTHMS.index("category")
    lifts = [float(figures.lifts_GG[codes[one, wide], codes[row, wide]]) for one in meant]
    facts["goes_with"] = sum(lifts) / len(lifts) if lifts else 0.0
    for number, name in enumerate(RHYTHMS):
        mine = int(codes[row, number])
        facts[f"same_{name}"] = float(mine > 0 and mine in [int(codes[one, number]) for one in meant])
    return facts


def test_names_are_unique_and_the_counted_ones_come_first():
    assert len(set(FACTS)) == len(FACTS)
    assert {"own_times", "away", "visits", "in_cart", "product_share"} <= set(FACTS[:COUNTED])
    assert {"inner", "retrieved", "hour_sine", "promoted", "looked"} <= set(FACTS[COUNTED:])


@pytest.mark.parametrize("who", PASTS)
@pytest.mark.parametrize(("location", "moment"), SITUATIONS)
@pytest.mark.parametrize("novel", [False, True])
def test_every_fact_is_what_recomputing_it_gives(who: str, location: int, moment: int, novel: bool):
    asked = ask(past(*PASTS[who]), location, moment, novel=novel)
    for row, facts in enumerate(read(asked).tolist()):
        expected = slow_facts(asked, row)
        assert set(expected) == set(FACTS)
        found = dict(zip(FACTS, facts, strict=True))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), row


def test_each_fact_is_not_the_same_everywhere():
    """Else the oracle could agree by saying nothing."""
    parts = [
        read(ask(past(*events), location, moment, novel=novel))
        for events in PASTS.values()
        for location, moment in [*SITUATIONS, *((0, NOW + day * DAY) for day in range(7))]
        for novel in (False, True)
    ]
    spans = np.ptp(np.concatenate(parts), axis=0)
    assert {name for name, span in zip(FACTS, spans.tolist(), strict=True) if span == 0} == {"retrieved"}


@pytest.mark.parametrize("who", PASTS)
def test_what_else_is_asked_and_in_which_order_does_not_matter(who: str):
    """To the bit, but for inner products: BLAS adds those up in an order that depends on how many there are."""
    asked = ask(past(*PASTS[who]), 0)
    whole = read(asked)
    exact = [place for place, name in enumerate(FACTS) if name not in ("inner", "taste")]
    for rows in (np.random.default_rng(0).permutation(N).tolist(), [5, 2], *([row] for row in range(N))):
        found = read(asked, rows)
        assert found[:, exact].tobytes() == whole[rows][:, exact].tobytes()
        np.testing.assert_allclose(found, whole[rows], rtol=1e-6, atol=1e-6)
    assert read(asked, []).shape == (0, len(FACTS))


def test_nothing_is_left_of_what_lay_in_the_memory_before():
    asked = ask(past(*PASTS["nothing"]))
    assert np.isfinite(read(asked)).all()


def test_a_reader_remembers_nothing_of_whom_it_read_before():
    reader = FactsReader(catalog(), statistics(), VECTORS)

    def facts(who: str, location: int, moment: int) -> bytes:
        facts_KF = np.empty((N, len(FACTS)), np.float32)
        asked = ask(past(*PASTS[who]), location, moment)
        reader.read(asked, np.arange(N), CUSTOMER, RETRIEVED_INNER, facts_KF)
        return facts_KF.tobytes()

    first = [facts(who, location, moment) for who in PASTS for location, moment in SITUATIONS]
    second = [facts(who, location, moment) for who in reversed(PASTS) for location, moment in reversed(SITUATIONS)]
    assert second[::-1] == first


def test_how_many_more_were_retrieved_changes_nothing():
    asked = ask(past(*PASTS["a rhythm"]))
    some = -np.sort(np.random.default_rng(1).standard_normal(3 * RETRIEVED).astype(np.float32))
    assert read(asked, inner=some).tobytes() == read(asked, inner=some[:RETRIEVED]).tobytes()
    assert read(asked, inner=some[: RETRIEVED - 1]).tobytes() != read(asked, inner=some[:RETRIEVED]).tobytes()


@pytest.mark.parametrize("inner", [[], [-np.inf, -np.inf]])
def test_without_anything_retrieved_there_is_no_sum(inner: list[float]):
    found = read(ask(past()), inner=np.array(inner, np.float32))
    assert not found[:, FACTS.index("retrieved")].any()


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_the_sum_of_what_was_retrieved_survives_large_inner_products(scale: float):
    inner = -np.sort(np.array([1, 0.5, 0.999], np.float32) * np.float32(-scale))
    found = read(ask(past()), inner=inner)[0, FACTS.index("retrieved")]
    assert found == pytest.approx(float(np.logaddexp.reduce(inner.astype(np.float64))), rel=1e-6)


def test_a_purchase_still_to_come_is_not_a_negative_time_away():
    asked = ask(past(("purchase", 1, -3.0, 0)))
    assert read(asked)[0, FACTS.index("away")] == 0
