"""What is counted of past purchases, against plain counting over Python lists."""

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.arrays import Ragged, Table
from embeddings.customer.history import BEGINS, EVENT, EVENT_CODES, GOES_ON, PURCHASE, UNSAID, Histories
from embeddings.ranking.observed import Observed
from embeddings.ranking.statistics import GROUPINGS, HAZARD_DAYS, PRODUCT_STATISTICS, AlsFactors, Neighbours, Statistics
from embeddings.vocabulary import Vocabulary
from tests.arrays import arrays_of
from tests.unit.embeddings.small import DAY, NOW, N, catalogue, observed
from training.config import RankerConfig
from training.statistics import Nearby, count, find_nearby

CUSTOMERS, HOUR = 12, 3_600
CONFIG = RankerConfig(type_attribute="type", category_attribute="category", maker_attribute="")
REGULARISATION = 0.3
FACTORS = np.random.default_rng(8).standard_normal((N, 2)).astype(np.float32)


class Event(NamedTuple):
    customer: int
    at: int
    type: str
    product: int
    location: int
    quantity: int = 1
    value: float = float("nan")


def histories_of(events: list[Event]) -> Histories:
    events = sorted(events, key=lambda event: (event.customer, event.at))
    records = np.zeros(len(events), EVENT)
    records["type"] = [EVENT_CODES[event.type] for event in events]
    for name in ("at", "product", "location", "quantity", "value"):
        records[name] = [getattr(event, name) for event in events]
    sizes = Counter(event.customer for event in events)
    return Histories(
        customers=Vocabulary.of([f"c{row:02d}" for row in range(CUSTOMERS)]),
        events=records,
        offsets=np.cumsum([0, *(sizes[row] for row in range(CUSTOMERS))]),
        attributes_CA=np.zeros((CUSTOMERS, 0), np.int32),
        audiences=Ragged.of([[]] * CUSTOMERS),
        attribute_names=(),
        attribute_labels=(),
    )


def draw(seed: int) -> list[Event]:
    """Baskets of half a year; nobody buys the last product, and some only look."""
    random, costs = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    carried = [one.tolist() for one in (catalogue().locations.assortment[row] for row in range(2))]
    events: list[Event] = []
    for customer in range(CUSTOMERS - 1):
        for _ in range(int(random.integers(1, 12))):
            at = NOW - int(random.integers(1, 180)) * DAY + int(random.integers(0, 3)) * 3_600
            location = int(random.integers(-1, 2))
            pool = range(N - 1) if location < 0 else carried[location]
            for product in random.choice(pool, int(random.integers(1, 4)), replace=False).tolist():
                kind = "purchase" if random.random() < 0.8 else "view"
                quantity, value = int(costs.integers(1, 4)), float(costs.choice([np.nan, 0, 1.5, 4]))
                events.append(Event(customer, at, kind, product, location, quantity, value))
        events.append(Event(customer, NOW - DAY, "purchase", -1, 0))
    return events


def bought_of(events: list[Event]) -> list[Event]:
    return [event for event in events if event.type == "purchase" and event.product >= 0]


def count_all(events: list[Event], seen: Observed | None = None) -> Statistics:
    return count_past(histories_of(events).before(NOW), seen)


def count_past(past: Histories, seen: Observed | None = None) -> Statistics:
    nearby = find_nearby(past, catalogue(), FACTORS, REGULARISATION, CONFIG)
    return count(past, catalogue(), seen or observed(), NOW, nearby, CONFIG)


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_each_product_are_what_counting_gives(seed: int):
    events = draw(seed)
    found, bought, known = count_all(events), bought_of(events), catalogue().products
    popularity_N = observed().popularity_N
    total = float(popularity_N.sum())
    visits = Counter((event.customer, event.at) for event in bought)
    sizes = [visits[event.customer, event.at] for event in bought]
    groups = [known.attributes.codes_NA[:, 0].tolist(), known.attributes.codes_NA[:, 1].tolist(), [0] * N]
    for row in range(N):
        mine = [event for event in bought if event.product == row]
        days: defaultdict[int, set[int]] = defaultdict(set)
        for event in mine:
            days[event.customer].add(event.at // DAY)
        gaps = sum(len(one) - 1 for one in days.values())
        spans = sum(max(one) - min(one) for one in days.values())
        expected = {
            "share": popularity_N[row] / total,
            "week": sum(event.at > NOW - 7 * DAY for event in mine),
            "month": sum(event.at > NOW - 28 * DAY for event in mine),
            "repeated": (sum(len(one) > 1 for one in days.values()) + 2 * 0.2) / (len(days) + 2),
            "buyers": len(days),
            "gap": (spans + 3 * 30) / (gaps + 3),
            "basket_size": (sum(visits[event.customer, event.at] for event in mine) + 10 * sum(sizes) / len(sizes))
            / (len(mine) + 10),
        }
        priced = [event for event in mine if event.value > 0]
        lately = [event for event in priced if event.at > NOW - 28 * DAY] or priced
        for name, some in (("price", priced), ("price_lately", lately)):
            expected[name] = sum(one.value for one in some) / sum(one.quantity for one in some) if some else 0
        expected["accepted"] = 0  # nothing is known to have been shown
        for name, codes in zip(GROUPINGS, groups, strict=True):
            alike = [popularity_N[other] / total for other in range(N) if codes[other] == codes[row]]
            expected[f"{name}_share"] = sum(alike) / len(alike) if codes[row] else 0
        figures = dict(zip(PRODUCT_STATISTICS, found.products_NP.base[row].tolist(), strict=True))
        assert figures == pytest.approx(expected, rel=1e-5), row
    assert found.products_NP.base.dtype == np.float32


def test_products_are_bought_after_they_were_shown_as_often_as_counting_gives():
    shown = [
        Event(customer, NOW - day * DAY, "impression", day % 3, 0) for customer in range(10) for day in range(8, 50)
    ]
    taken = [event._replace(type="purchase", at=event.at + HOUR) for event in shown[::4]]
    late = [event._replace(type="purchase", at=event.at + HOUR) for event in shown[1::50] if event.product == 1]
    found = count_all([*shown, *taken, *late]).products_NP.base[:, PRODUCT_STATISTICS.index("accepted")]
    bought = {(event.customer, event.at - HOUR, event.product) for event in (*taken, *late)}
    accepted = [event for event in shown if (*event[:2], event.product) in bought]
    overall = len(accepted) / len(shown)
    for row in range(N):
        mine = [event for event in shown if event.product == row]
        yes = sum(event in accepted for event in mine)
        chance = (yes + 20 * overall) / (len(mine) + 20)
        assert found[row] == pytest.approx(100 * chance / (1 - chance), rel=1e-5), row


def with_guests(events: list[Event], visit: list[int]) -> Histories:
    """A past to which three products that a guest bought ten days ago were added."""
    guests = np.zeros(3, EVENT)
    guests["at"], guests["product"], guests["location"] = NOW - 10 * DAY, (0, 1, 2), 0
    guests["type"], guests["quantity"], guests["visit"] = PURCHASE, 1, visit
    return replace(histories_of(events).before(NOW), guests=guests, visit_pause=HOUR)


@pytest.mark.parametrize("visit", [[UNSAID] * 3, [BEGINS, GOES_ON, GOES_ON]])
def test_guests_count_for_what_is_popular_and_by_visit_for_what_is_bought_together(visit: list[int]):
    events = [event for event in draw(1) if event.location != 0 or event.product not in (0, 1, 2)]
    before, after = (
        count(
            past, catalogue(), observed(), NOW, find_nearby(past, catalogue(), FACTORS, REGULARISATION, CONFIG), CONFIG
        )
        for past in (histories_of(events).before(NOW), with_guests(events, visit))
    )
    month, lines = PRODUCT_STATISTICS.index("month"), PRODUCT_STATISTICS.index("basket_size")
    more = np.array([1, 1, 1] + [0] * (N - 3))
    assert (after.products_NP.base[:, month] - before.products_NP.base[:, month]).tolist() == more.tolist()
    for name in ("repeated", "buyers", "gap"):
        figure = PRODUCT_STATISTICS.index(name)
        assert after.products_NP.base[:, figure].tolist() == before.products_NP.base[:, figure].tolist()
    together = pairs(after.bought_together) != pairs(before.bought_together)
    assert together == (visit[0] == BEGINS) == (after.products_NP.base[0, lines] != before.products_NP.base[0, lines])
    assert after.month_L.sum() > before.month_L.sum()
    assert pairs(after.also_bought) == pairs(before.also_bought)


def test_a_group_is_as_popular_as_what_is_sold_of_it_on_average():
    known = catalogue()
    codes_N = known.products.attributes.codes_NA[:, 0]
    (first, *_) = rows = np.flatnonzero(codes_N == 1).tolist()
    popularity_N = observed().popularity_N.copy()
    popularity_N[first] = 0  # not sold yet
    found = count_all(draw(0), observed()._replace(popularity_N=popularity_N))
    shares = [popularity_N[row] / popularity_N.sum() for row in rows[1:]]
    assert found.products_NP.base[first, PRODUCT_STATISTICS.index("share")] == 0
    assert found.products_NP.base[first, PRODUCT_STATISTICS.index("type_share")] == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("seed", range(4))
def test_what_each_location_sold_in_a_month_lies_beside_its_assortment(seed: int):
    events = draw(seed)
    assortment = catalogue().locations.assortment
    expected = [
        sum(
            event.product == row and event.location == location and event.at > NOW - 28 * DAY
            for event in bought_of(events)
        )
        for location in range(len(assortment))
        for row in assortment[location].tolist()
    ]
    assert count_all(events).month_L.tolist() == expected
    assert sum(expected)


def test_groups_are_the_products_attributes_and_an_unknown_name_gives_none():
    found, codes_NA = count_all(draw(0)), catalogue().products.attributes.codes_NA
    assert found.groups_NQ.base.dtype == np.int32
    np.testing.assert_array_equal(found.groups_NQ.base[:, :2], codes_NA)
    assert not found.groups_NQ.base[:, 2].any()


def pairs(found: Neighbours) -> dict[tuple[int, int], float]:
    """Weights by product and neighbour; that the nearest come first is checked on the way."""
    weights: dict[tuple[int, int], float] = {}
    for row, (rows, some) in enumerate(zip(found.rows_NT.base.tolist(), found.weights_NT.base.tolist(), strict=True)):
        real = [(other, weight) for other, weight in zip(rows, some, strict=True) if other >= 0]
        assert real == sorted(real, key=lambda pair: (-pair[1], pair[0]))
        assert rows[len(real) :] == [-1] * (len(rows) - len(real))
        assert some[len(real) :] == [0.0] * (len(rows) - len(real))
        assert row not in dict(real)
        assert len(dict(real)) == len(real)
        weights |= {(row, other): weight for other, weight in real}
    return weights


def cosines(columns: dict[int, dict[object, float]]) -> dict[tuple[int, int], float]:
    """The cosine of every two sparse columns that share an entry."""
    found: dict[tuple[int, int], float] = {}
    for one, other in itertools.permutations(columns, 2):
        inner = sum(weight * columns[other].get(key, 0) for key, weight in columns[one].items())
        lengths = [math.sqrt(sum(weight**2 for weight in columns[row].values())) for row in (one, other)]
        if inner:
            found[one, other] = inner / math.prod(lengths)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_together_is_the_cosine_of_baskets(seed: int):
    events = draw(seed)
    columns: defaultdict[int, dict[object, float]] = defaultdict(dict)
    for event in bought_of(events):
        columns[event.product][event.customer, event.at] = 1.0
    found = pairs(count_all(events).bought_together)
    assert found == pytest.approx(cosines(columns), rel=1e-5)
    assert found


@pytest.mark.parametrize("seed", range(4))
def test_alike_is_the_cosine_of_buyers_weighed_by_bm25(seed: int):
    events = draw(seed)
    lines = Counter((event.customer, event.product) for event in bought_of(events))
    weights = {pair: math.log1p(times) for pair, times in lines.items()}
    sizes: Counter[int] = Counter()
    for (customer, _), weight in weights.items():
        sizes[customer] += weight  # pyright: ignore[reportArgumentType]
    average = sum(sizes.values()) / CUSTOMERS
    buyers = Counter(product for _, product in lines)
    columns: defaultdict[int, dict[object, float]] = defaultdict(dict)
    for (customer, product), weight in weights.items():
        rarity = math.log(CUSTOMERS) - math.log1p(buyers[product])
        length = 0.25 + 0.75 * sizes[customer] / average
        columns[product][customer] = weight * 2.2 / (1.2 * length + weight) * rarity
    expected = {pair: weight for pair, weight in cosines(columns).items() if weight > 1e-9}
    found = {pair: weight for pair, weight in pairs(count_all(events).also_bought).items() if weight > 1e-9}
    assert found == pytest.approx(expected, rel=1e-4)
    assert found


@pytest.mark.parametrize("buyers", [CUSTOMERS - 2, CUSTOMERS - 1, CUSTOMERS])
def test_what_nearly_everybody_buys_is_like_nothing_and_every_cosine_is_a_number(buyers: int):
    events = [Event(one, NOW - DAY * (one + 1), "purchase", 0, 0) for one in range(buyers)]
    events += [Event(one, NOW - DAY * (one + 2), "purchase", 1 + one % 2, 0) for one in range(CUSTOMERS)]
    found = count_all(events)
    for near in (found.also_bought, found.bought_together):
        assert np.isfinite(near.weights_NT.base).all()
    # Where all but one buy it its weight by BM25 is zero.
    assert any(0 in pair for pair in pairs(found.also_bought)) == (buyers < CUSTOMERS - 1)


@pytest.mark.parametrize("seed", range(2))
def test_lifts_say_how_much_oftener_than_by_chance_two_groups_meet_in_a_basket(seed: int):
    events = draw(seed)
    codes = catalogue().products.attributes.codes_NA[:, 1].tolist()
    baskets: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for event in bought_of(events):
        baskets[event.customer, event.at].add(codes[event.product])
    found = count_all(events).lifts_GG
    assert found.shape == (4, 4)
    for one, other in itertools.product(range(4), repeat=2):
        met = sum({one, other} <= basket for basket in baskets.values())
        seen = [sum(code in basket for basket in baskets.values()) for code in (one, other)]
        expected = math.log((met + 10) / (math.prod(seen) / len(baskets) + 10)) if one and other else 0.0
        assert found[one, other] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_only_the_nearest_twenty_are_kept():
    basket = [Event(0, NOW - DAY, "purchase", product, -1) for product in range(30)]
    often = [Event(1, NOW - 2 * DAY, "purchase", product, -1) for product in (0, 29)]
    wide = catalogue()
    many = Vocabulary.of([f"q{row:02d}" for row in range(30)])
    attributes = wide.products.attributes._replace(codes_NA=np.ones((30, 2), np.int32))
    wide = wide._replace(products=wide.products._replace(ids=many, attributes=attributes))
    past = histories_of([*basket, *often])
    found = find_nearby(past, wide, np.ones((30, 2), np.float32), 0.1, CONFIG).bought_together
    assert found.rows_NT.base.shape == (30, 20)
    assert (found.rows_NT.base >= 0).all()
    assert found.rows_NT.base[0, 0] == 29
    assert found.weights_NT.base[0, 0] == pytest.approx(1)
    assert found.weights_NT.base[0, 1] == pytest.approx(1 / math.sqrt(2))


def test_what_happens_at_the_moment_or_later_counts_nowhere():
    events = draw(1)
    later = [replace_at(event, NOW + offset * DAY) for offset in (0, 1, 30) for event in events]
    plain, with_later = count_all(events), count_all([*events, *later])
    for one, other in zip(arrays_of(plain), arrays_of(with_later), strict=True):
        assert one.tobytes() == other.tobytes()
    earlier = count_all([*events, *(replace_at(event, NOW - 1) for event in events)])
    assert any(
        one.tobytes() != other.tobytes() for one, other in zip(arrays_of(plain), arrays_of(earlier), strict=True)
    )


def replace_at(event: Event, at: int) -> Event:
    return event._replace(at=at)


def test_without_any_purchase_the_priors_stand():
    found = count_all([Event(0, NOW - DAY, "view", 3, 0)])
    figures = dict(zip(PRODUCT_STATISTICS, found.products_NP.base[3].tolist(), strict=True))
    assert (figures["week"], figures["month"], figures["buyers"]) == (0, 0, 0)
    assert (figures["repeated"], figures["gap"]) == pytest.approx((0.2, 30))
    assert (found.also_bought.rows_NT.base == -1).all()
    assert (found.bought_together.rows_NT.base == -1).all()


def test_counting_anew_keeps_what_was_fitted_before():
    events = draw(0)
    past = histories_of(events).before(NOW)
    nearby = find_nearby(past, catalogue(), FACTORS, REGULARISATION, CONFIG)
    counted = count(past, catalogue(), observed(), NOW, nearby, CONFIG)
    assert Nearby.of(counted) == nearby
    np.testing.assert_allclose(counted.als.gram_DD, FACTORS.T @ FACTORS + REGULARISATION * np.eye(2), rtol=1e-6)


# Neighbours and tastes


def test_around_adds_up_the_cosines_of_weighted_products():
    near = Neighbours.of(
        np.array([[1, 2], [2, -1], [-1, -1], [0, 2]], np.int32),
        np.array([[0.5, 0.25], [1, 0], [0, 0], [0.125, 0.75]], np.float32),
    )
    rows, sums = near.around(np.array([0, 1, 3]), np.array([2, 1, 4], np.float32))
    assert rows.tolist() == [0, 1, 2]
    assert sums.tolist() == [4 * 0.125, 2 * 0.5, 2 * 0.25 + 1 + 4 * 0.75]
    assert (rows.dtype, sums.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("rows", [[], [2]])
def test_around_nothing_there_is_nothing(rows: list[int]):
    near = Neighbours.of(np.array([[1], [0], [-1]], np.int32), np.array([[1], [1], [0]], np.float32))
    found, sums = near.around(np.array(rows, np.int64), np.ones(len(rows), np.float32))
    assert (len(found), len(sums)) == (0, 0)


def test_a_release_without_neighbours_has_none_around():
    nobody = Statistics.none(observed(), 3)
    rows, sums = nobody.also_bought.around(np.array([0, 3]), np.ones(2, np.float32))
    assert (len(rows), len(sums)) == (0, 0)
    assert nobody.products_NP.base.shape == (N, len(PRODUCT_STATISTICS))


def test_tastes_are_one_step_of_alternating_least_squares():
    """The factors solve the weighted least squares over all products: preference 1 where bought, 0 elsewhere."""
    tastes = AlsFactors(Table.of(FACTORS), (FACTORS.T @ FACTORS + REGULARISATION * np.eye(2)).astype(np.float32))
    times = {1: 3, 4: 1, 7: 9}
    found = tastes.of(np.array(list(times)), np.array(list(times.values())))
    weights = np.array([times.get(row, 1) for row in range(N)], np.float64)
    wanted = np.array([row in times for row in range(N)], np.float64)
    design = np.sqrt(weights)[:, None] * FACTORS.astype(np.float64)
    system = np.concatenate([design, math.sqrt(REGULARISATION) * np.eye(2)])
    expected, *_ = np.linalg.lstsq(system, np.concatenate([np.sqrt(weights) * wanted, np.zeros(2)]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not tastes.of(np.zeros(0, np.int64), np.zeros(0, np.int64)).any()


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 59), st.integers(1, 30), max_size=60), st.sampled_from([1, 2, 7, 64]))
def test_als_factors_solve_the_equations_of_its_step(times: dict[int, int], dimensions: int):
    random = np.random.default_rng(dimensions)
    products_ND = random.standard_normal((60, dimensions)).astype(np.float32)
    gram_DD = (products_ND.T @ products_ND + np.eye(dimensions)).astype(np.float32)
    rows_R, times_R = np.array(list(times), np.int64), np.array(list(times.values()), np.int64)
    found = AlsFactors(Table.of(products_ND), gram_DD).of(rows_R, times_R)
    bought_RD = products_ND[rows_R].astype(np.float64)
    expected = np.linalg.solve(gram_DD + (bought_RD.T * (times_R - 1)) @ bought_RD, times_R @ bought_RD)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_complements_lie_in_most_of_a_products_baskets_and_oftener_than_by_chance(seed: int):
    events = draw(seed)
    found, bought = count_all(events), bought_of(events)
    baskets: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for event in bought:
        baskets[event.customer, event.at].add(event.product)
    lay = Counter(row for basket in baskets.values() for row in basket)
    together = Counter((row, other) for basket in baskets.values() for row in basket for other in basket - {row})
    some = 0
    for row in range(N):
        chance = {other: lay[row] * lay[other] / len(baskets) for other in range(N)}
        expected = {
            other: together[row, other]
            for other in range(N)
            if together[row, other] >= max(2, 1.2 * chance[other]) and other != row
        }
        rows = [other for other in found.complements.rows_NT.base[row].tolist() if other >= 0]
        assert set(rows) == set(expected)
        times = found.together_NT.base[row, : len(rows)].tolist()
        assert times == sorted(expected.values(), reverse=True) == [expected[other] for other in rows]
        shares = found.complements.weights_NT.base[row, : len(rows)].tolist()
        assert shares == pytest.approx([count / lay[row] for count in times])
        some += len(rows)
    assert some > 0


@pytest.mark.parametrize("seed", range(4))
def test_hazards_are_the_share_of_visits_in_which_what_was_bought_so_long_ago_is_bought_again(seed: int):
    events = draw(seed)
    found, bought = count_all(events), bought_of(events)
    spans = len(HAZARD_DAYS) + 1
    came, again = np.zeros((N, spans)), np.zeros((N, spans))
    visits: defaultdict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for event in bought:
        visits[event.customer][event.at].add(event.product)
    for of_customer in visits.values():
        last: dict[int, int] = {}
        for at, products in sorted(of_customer.items()):
            for row, before in last.items():
                span = sum(end < (at - before) / DAY for end in HAZARD_DAYS)
                came[row, span] += 1
                again[row, span] += row in products
            last |= dict.fromkeys(products, at)
    everywhere = again.sum(axis=0) / np.maximum(came.sum(axis=0), 1)
    types = catalogue().products.attributes.codes_NA[:, 0]
    for row in range(N):
        same = types == types[row]
        of_type = (again[same].sum(axis=0) + 50 * everywhere) / (came[same].sum(axis=0) + 50)
        if types[row] == 0:
            of_type = everywhere
        np.testing.assert_allclose(found.hazards_GH[types[row]], of_type, rtol=1e-5)
        expected = (again[row] + 20 * of_type) / (came[row] + 20)
        np.testing.assert_allclose(found.hazards_NH.base[row], expected, rtol=1e-5)
    assert again.sum() > 0
