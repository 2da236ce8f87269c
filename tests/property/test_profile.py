"""A profile against plain sums over Python numbers."""

import itertools
import math
import statistics as plain
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.customer.history import EVENT, EVENT_CODES, History
from embeddings.customer.session import session_of
from embeddings.ranking.profile import DECAYS, GROUP, GROUP_DECAY, OWN, Profile, profile_of
from embeddings.ranking.statistics import GROUPINGS, PRODUCT_STATISTICS
from tests.unit.embeddings.small import ALIKE, DAY, LOCATIONS, NOW, RHYTHM_CODES, N, statistics

STATISTICS = statistics()
GAPS, PRICES = (STATISTICS.products_NP.base[:, PRODUCT_STATISTICS.index(name)].tolist() for name in ("gap", "price"))
HOUR = 3_600


class Event(NamedTuple):
    at: int
    type: str
    product: int
    location: int
    quantity: int = 1
    value: float = math.nan


MOMENTS = st.one_of(
    st.sampled_from([NOW - days * DAY for days in (0, 1, 7, 14)]),
    st.integers(NOW - 400 * DAY, NOW),
    st.integers(NOW - 12 * HOUR, NOW),
)
TYPES = st.sampled_from(
    ["purchase"] * 4 + ["view", "click", "add_to_cart", "remove_from_cart", "dismissal", "impression"]
)
EVENTS = st.lists(
    st.builds(
        Event,
        MOMENTS,
        TYPES,
        st.integers(-1, N - 1),
        st.integers(-1, LOCATIONS - 1),
        st.integers(1, 5),
        st.sampled_from([math.nan, 0.0, 2.5, 7.0]),
    ),
    max_size=30,
).map(lambda events: sorted(events, key=lambda event: event.at))


def past(events: list[Event]) -> History:
    events_E = np.zeros(len(events), EVENT)
    events_E["type"] = [EVENT_CODES[event.type] for event in events]
    for name in ("at", "product", "location", "quantity", "value"):
        events_E[name] = [getattr(event, name) for event in events]
    return History(events_E, np.zeros(0, np.int32), ())


def profile(events: list[Event]) -> Profile:
    return profile_of(past(events).purchases, STATISTICS)


def bought_of(events: list[Event]) -> list[Event]:
    """The purchases; of several lines of one product at one moment the first."""
    bought = [event for event in events if event.type == "purchase" and event.product >= 0]
    first: dict[tuple[int, int], Event] = {}
    for event in bought:
        first.setdefault((event.product, event.at), event)
    return list(first.values())


def decayed(moments: list[int], decay: float, newest: int) -> float:
    return sum(decay ** ((newest - at) / DAY) for at in moments)


@given(EVENTS)
def test_what_was_bought_is_counted_by_product(events: list[Event]):
    found, bought = profile(events), bought_of(events)
    newest = max((event.at for event in bought), default=0)
    lines: defaultdict[int, list[int]] = defaultdict(list)
    for event in bought:
        lines[event.product].append(event.at)
    visits = {event.at for event in bought}
    sizes = Counter(event.at for event in bought)
    assert found.newest == newest
    assert found.rows_R.tolist() == sorted(lines)
    assert found.own_RC.shape == (len(lines) + 1, len(OWN))
    for place, row in enumerate(sorted(lines)):
        at = lines[row]
        days = len({moment // DAY for moment in at})
        priced = [one for one in events if one.type == "purchase" and one.product == row and one.value > 0]
        expected = {
            "price": sum(one.value for one in priced) / sum(one.quantity for one in priced) if priced else PRICES[row],
            "times": len(at),
            "slow": decayed(at, DECAYS[0], newest),
            "middling": decayed(at, DECAYS[1], newest),
            "fast": decayed(at, DECAYS[2], newest),
            "days": days,
            "since": (newest - max(at)) / DAY,
            # As if the gaps seen were one more, of everybody's length.
            "gap": ((max(at) - min(at)) / DAY + GAPS[row]) / days,
            "visits_since": sum(visit > max(at) for visit in visits),
            "basket_size": sum(sizes[moment] for moment in at) / len(at),
        }
        assert dict(zip(OWN, found.own_RC[place].tolist(), strict=True)) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    never = dict(zip(OWN, found.own_RC[-1].tolist(), strict=True))
    assert never.pop("since") >= 365
    assert set(never.values()) == {0.0}


@given(EVENTS)
def test_what_was_bought_is_counted_by_group(events: list[Event]):
    found, bought = profile(events), bought_of(events)
    newest = max((event.at for event in bought), default=0)
    assert len(found.groups) == len(GROUPINGS)
    for number, group in enumerate(found.groups):
        lines: defaultdict[int, list[int]] = defaultdict(list)
        for event in bought:
            lines[int(RHYTHM_CODES[event.product, number])].append(event.at)
        assert group.codes_G.tolist() == sorted(lines)
        never = group.statistics_GC[-1].tolist()
        for place, code in enumerate(sorted(lines)):
            at = lines[code]
            expected = {
                "lately": decayed(at, GROUP_DECAY, newest),
                "slow": decayed(at, DECAYS[0], newest),
                "since": (newest - max(at)) / DAY,
                "gap": ((max(at) - min(at)) / DAY + 30) / len({moment // DAY for moment in at}),
            }
            figures = dict(zip(GROUP, group.statistics_GC[place].tolist(), strict=True))
            if code:
                assert figures == pytest.approx(expected, rel=1e-5, abs=1e-6)
            else:
                assert list(figures.values()) == never, "of no group nothing is known"
        assert never[:2] == [0, 0]


@given(EVENTS)
def test_visits_are_moments_of_purchases(events: list[Event]):
    found, bought = profile(events), bought_of(events)
    moments = sorted({event.at for event in bought})
    assert found.visits == pytest.approx(decayed(moments, DECAYS[0], found.newest))
    assert found.basket_size == pytest.approx(len(bought) / max(len(moments), 1))
    gaps = [(late - early) / DAY for early, late in itertools.pairwise(moments)]
    assert found.visit_gap == pytest.approx(plain.median(gaps) if len(gaps) > 1 else 7.0)


@given(EVENTS, st.integers(-1, LOCATIONS - 1))
def test_what_was_bought_at_a_location_is_counted_apart(events: list[Event], location: int):
    found, bought = profile(events), bought_of(events)
    lines: defaultdict[int, list[int]] = defaultdict(list)
    visits: dict[int, int] = {}
    for event in bought:
        visits.setdefault(event.at, event.location)  # a visit is where its first line is
        if location >= 0 and event.location == location:
            lines[event.product].append(event.at)
    expected = [decayed(lines[row], DECAYS[0], found.newest) for row in [*found.rows_R.tolist(), -1]]
    here = [at for at, where in visits.items() if location >= 0 and where == location]
    for _ in range(2):  # worked out, and then remembered
        local = found.at(location)
        assert local.slow_R.tolist() == pytest.approx(expected, rel=1e-5)
        assert local.visits == pytest.approx(decayed(here, DECAYS[0], found.newest))


@given(EVENTS, st.none() | st.lists(st.integers(-1, LOCATIONS), max_size=3))
def test_the_usual_location_has_the_most_visits_of_late(events: list[Event], among: list[int] | None):
    bought = bought_of(events)
    newest = max((event.at for event in bought), default=0)
    visits: dict[int, int] = {}
    for event in bought:
        visits.setdefault(event.at, event.location)
    weights: defaultdict[int, float] = defaultdict(float)
    for at, location in sorted(visits.items()):
        if location >= 0 and (among is None or location in among):
            weights[location] += 0.97 ** ((newest - at) / DAY)
    found = past(events).purchases.usual_location(among)
    if not weights:
        assert found == -1
    else:
        most = max(weights.values())
        assert found in [one for one, weight in weights.items() if weight == pytest.approx(most)]


@given(EVENTS, st.integers(NOW - 2 * DAY, NOW + 8 * DAY))
def test_what_was_bought_near_a_time_of_the_week_is_counted_by_how_near(events: list[Event], moment: int):
    found, bought = profile(events), bought_of(events)

    def near(at: int) -> float:
        hours = min((moment - at) % DAY, (at - moment) % DAY) / HOUR
        days = min((moment - at) % (7 * DAY), (at - moment) % (7 * DAY)) / DAY
        return max(1 - hours / 6, 0) * (1 if days <= 0.5 else 0.3)

    def counted(moments: Iterable[int]) -> float:
        return sum(near(at) * decayed([at], DECAYS[0], found.newest) for at in moments)

    hour = found.at_hour(moment)
    expected = [counted(event.at for event in bought if event.product == row) for row in [*found.rows_R.tolist(), -1]]
    assert hour.slow_R.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert hour.visits == pytest.approx(counted({event.at for event in bought}))
    lines = counted(event.at for event in bought)
    assert hour.basket_size == pytest.approx((lines + 2 * found.basket_size) / (hour.visits + 2))


@given(EVENTS, st.sampled_from([NOW, NOW + HOUR, NOW + 5 * HOUR, NOW + 20 * DAY, NOW + 40 * DAY]))
def test_a_session_is_what_was_done_since_the_last_purchase_within_six_hours(events: list[Event], moment: int):
    known = [event for event in events if event.product >= 0]
    cart: set[int] = set()
    looked: set[int] = set()
    for event in events:  # in order, also within a second
        if event.type == "purchase":
            cart, looked = set(), set()
        elif event.product >= 0 and event.at > moment - 6 * HOUR:
            if event.type == "add_to_cart":
                cart.add(event.product)
            elif event.type == "remove_from_cart":
                cart.discard(event.product)
            elif event.type in ("view", "click"):
                looked.add(event.product)
    expected = {
        "cart": cart,
        "looked": looked,
        "dismissed": {event.product for event in known if event.type == "dismissal" and event.at >= moment - 30 * DAY},
    }
    found = session_of(past(events), moment)
    if found is None:
        assert not any(expected.values())
    else:
        for name, rows in expected.items():
            assert getattr(found, name).tolist() == sorted(rows)
            assert getattr(found, name).dtype == np.int64


@given(EVENTS)
def test_alike_are_the_neighbours_of_what_was_bought_lately_and_often(events: list[Event]):
    found = profile(events)
    expected: defaultdict[int, float] = defaultdict(float)
    for place, row in enumerate(found.rows_R.tolist()):
        for other, weight in ALIKE[row]:
            expected[other] += weight * math.log1p(found.own_RC[place, OWN.index("middling")])
    assert found.also_bought[0].tolist() == sorted(expected)
    assert found.also_bought[1].tolist() == pytest.approx([expected[row] for row in sorted(expected)], rel=1e-5)
