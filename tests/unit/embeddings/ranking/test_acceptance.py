"""How often offers are accepted when shown: exposures beside a slow oracle, and new codes and offers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.customer.history import EVENT, EVENT_CODES, VISIT_SECONDS, Events
from embeddings.ranking.acceptance import ACCEPTED_WITHIN, Acceptance, find_exposures, situation_codes

TYPES = ("impression", "dismissal", "redemption", "purchase", "view")
STEP = VISIT_SECONDS // 2


def events(some: list[tuple[int, str, int]]) -> Events:
    found = np.zeros(len(some), EVENT)
    for place, (at, kind, offer) in enumerate(some):
        found[place] = (at, -1, offer, -1, 1, np.nan, EVENT_CODES[kind], -1, 0)
    return found


def slowly(some: Events, owners: list[int]) -> set[tuple[int, int, int, int]]:
    """Owner, offer, moment and redemption of each exposure, one event after the other."""
    found: list[list[int]] = []
    order = sorted(range(len(some)), key=lambda place: (some["at"][place], some["type"][place] == REDEMPTION, place))
    last: dict[tuple[int, int], tuple[list[int], int]] = {}
    for place in order:
        at, offer, kind = (int(some[name][place]) for name in ("at", "offer", "type"))
        key = (owners[place], offer)
        if offer < 0:
            continue
        if kind in (EVENT_CODES["impression"], EVENT_CODES["dismissal"]):
            most = ACCEPTED_WITHIN if kind == EVENT_CODES["dismissal"] else VISIT_SECONDS
            if key in last and at - last[key][1] <= most:
                last[key] = (last[key][0], at)
            else:
                found.append([owners[place], offer, at, 0])
                last[key] = (found[-1], at)
        elif kind == REDEMPTION and key in last:
            exposure = last[key][0]
            if at - exposure[2] <= ACCEPTED_WITHIN and not exposure[3]:
                exposure[3] = at
    return {(one[0], one[1], one[2], one[3]) for one in found}


REDEMPTION = EVENT_CODES["redemption"]

HISTORY = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(1, 40) | st.integers(660, 700),
        st.sampled_from(TYPES),
        st.integers(-1, 2),
    ),
    max_size=30,
)


@given(HISTORY)
def test_exposures_are_those_of_a_slow_reading(history: list[tuple[int, int, str, int]]) -> None:
    some = events([(step * STEP, kind, offer) for _, step, kind, offer in history])
    owners = [owner for owner, *_ in history]
    found = find_exposures(some, np.array(owners, np.int64))
    columns = (found.owners_X, found.rows_X, found.at_X, found.accepted_at_X)
    assert set(zip(*(column.tolist() for column in columns), strict=True)) == slowly(some, owners)
    assert (some["at"][found.places_X] == found.at_X).all()


@given(HISTORY, st.integers(0, 700))
def test_what_comes_later_is_unknown_before(history: list[tuple[int, int, str, int]], step: int) -> None:
    some = events([(one * STEP, kind, offer) for _, one, kind, offer in history])
    owners, moment = np.array([owner for owner, *_ in history], np.int64), step * STEP
    earlier = some["at"] < moment
    whole, cut = find_exposures(some, owners).before(moment), find_exposures(some[earlier], owners[earlier])
    for name in ("owners_X", "rows_X", "at_X", "accepted_at_X"):
        assert getattr(whole, name).tolist() == getattr(cut, name).tolist()


def test_an_offer_or_a_code_that_came_later_is_like_one_of_which_nothing_is_known() -> None:
    acceptance = Acceptance(
        np.array([1.0, 2.0], np.float32),
        np.array([0.5], np.float32),
        np.array([[0, 0.1, 0, 0.3], [0, 0.2, 0, 0.4]], np.float32),
        np.array([0, 2, 4]),
        np.array([1]),
        np.array([0]),
    )
    of_offer, of_customer, now = acceptance.log_odds(np.array([1, 0, 2]), np.array([1, 7]))
    assert of_offer == pytest.approx([2, 1, 0.5])
    assert of_customer == pytest.approx([2.2, 1.1, 0.5])
    assert now == pytest.approx([2, 1, 0.5])
    assert not Acceptance.none().known


def test_the_part_of_the_day_and_the_day_of_the_week_are_told() -> None:
    monday = 4 * 86_400
    at = np.array([monday + 3 * 3_600, monday + 86_400 + 21 * 3_600])
    codes = situation_codes(np.array([2, -1]), at, np.array([[5], [0]]))
    assert codes.tolist() == [[3, 0, 0, 5], [0, 1, 5, 0]]
