"""Coupons: what counts as truth, what as a violation, and what the service has heard of when it is asked."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from benchmarks.quality import coupons as task
from benchmarks.quality.coupon_days import (
    CouponDay,
    affinity,
    coupon_days,
    judge_offers,
    most_redeemed,
    random_scores,
    violations,
)
from benchmarks.quality.journey import Coupons, Redemption
from benchmarks.quality.service import Event
from tests.unit.benchmarks.quality.stand_in import StandIn

JANUARY = date(2017, 1, 1), date(2017, 1, 31)
COUPONS = Coupons(
    products={
        "1-milk": frozenset({"10"}),
        "1-food": frozenset({"10", "11", "12", "13"}),
        "2-tea": frozenset({"20"}),
    },
    campaign={"1-milk": "1", "1-food": "1", "2-tea": "2"},
    days={"1": JANUARY, "2": (date(2017, 1, 10), date(2017, 1, 20))},
    campaigns={"a": frozenset({"1", "2"}), "b": frozenset({"1"})},
    redemptions=[
        Redemption("a", "1-milk", date(2017, 1, 2)),
        Redemption("b", "1-food", date(2017, 1, 5)),
        Redemption("b", "2-tea", date(2017, 1, 5)),  # not for b
        Redemption("a", "2-tea", date(2017, 1, 20)),
        Redemption("a", "2-tea", date(2017, 1, 21)),  # a day too late
    ],
)


def moment(day: int, hour: int) -> datetime:
    return datetime(2017, 1, day, hour, tzinfo=UTC)


LAST = pl.DataFrame(
    [
        ("a", "s1", moment(3, 4), date(2017, 1, 2)),  # 11 at night in New York
        ("b", "s2", moment(5, 18), date(2017, 1, 5)),
        ("a", "s1", moment(20, 18), date(2017, 1, 20)),
        ("a", "s1", moment(21, 18), date(2017, 1, 21)),
    ],
    schema=["household_id", "store_id", "at", "day"],
    orient="row",
)
LINES = pl.DataFrame(
    [
        ("a", "s1", "20", moment(1, 12)),
        ("a", "s1", "11", moment(2, 12)),
        ("a", "s1", "12", moment(2, 12)),
        ("a", "s1", "10", moment(3, 4)),
        ("b", "s2", "13", moment(5, 18)),
        ("b", "s2", "13", moment(22, 18)),
    ],
    schema=["household_id", "store_id", "product_id", "at"],
    orient="row",
).with_columns(quantity=pl.lit(1), value=pl.lit(2.5))


def days(since: date = date(2017, 1, 1)) -> list[CouponDay]:
    return coupon_days(COUPONS, LAST, since)


def test_only_what_a_household_could_redeem_is_truth():
    assert [(day.household, day.day.day, set(day.redeemed)) for day in days()] == [
        ("a", 2, {"1-milk"}),
        ("b", 5, {"1-food"}),
        ("a", 20, {"2-tea"}),
    ]


def test_the_last_day_of_a_campaign_belongs_to_it():
    assert [day.eligible for day in days()] == [
        ["1-food", "1-milk"],
        ["1-food", "1-milk"],
        ["1-food", "2-tea"],  # milk is used up
    ]


def test_days_before_the_first_are_left_out():
    assert [day.day.day for day in days(date(2017, 1, 5))] == [5, 20]


def test_offers_outside_audience_or_dates_are_violations():
    """Three of them: tea has not begun on the 2nd, is never for b, and a has used milk by the 20th."""
    answers = [["1-milk", "2-tea"], ["2-tea", "1-food"], ["2-tea", "1-milk"]]
    assert violations(answers, days()) == 3


def test_the_most_redeemed_are_counted_until_the_day_before():
    assert most_redeemed(COUPONS, days()) == [
        ["1-food", "1-milk"],
        ["1-milk", "1-food"],
        ["1-food", "2-tea"],
    ]


def test_affinity_counts_earlier_lines_of_what_is_covered():
    first = days()[:1]
    assert affinity(COUPONS, first, LINES, by_size=False) == [["1-food", "1-milk"]]
    third = [days()[2]._replace(eligible=sorted(COUPONS.campaign))]
    assert affinity(COUPONS, third, LINES, by_size=False) == [["1-food", "1-milk", "2-tea"]]
    milk = LINES.filter(pl.col("product_id") == "10")
    assert affinity(COUPONS, third, milk, by_size=False) == [["1-food", "1-milk", "2-tea"]], "as much for both: by id"
    assert affinity(COUPONS, third, milk, by_size=True) == [["1-milk", "1-food", "2-tea"]], "food is four times as much"
    assert affinity(COUPONS, days()[1:2], LINES, by_size=False) == [["1-food", "1-milk"]], "nothing bought yet: by id"


def test_random_scores_are_what_drawing_comes_to():
    day = CouponDay("a", "s1", moment(2, 0), date(2017, 1, 2), [str(one) for one in range(14)], frozenset({"3", "8"}))
    random = np.random.default_rng(0)
    drawn = judge_offers([random.permutation(day.eligible).tolist() for _ in range(20_000)], [day] * 20_000)
    for metric, expected in random_scores([day]).items():
        assert expected[0] == pytest.approx(np.mean(drawn[metric]), abs=0.01), metric


def test_all_that_came_earlier_is_reported_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "read_coupons", lambda: COUPONS)
    monkeypatch.setattr(task, "purchase_lines", lambda: LINES)
    monkeypatch.setattr(task, "last_transactions", lambda: LAST)
    heard: list[list[str]] = []

    def answer(household: str, events: Sequence[Event]) -> list[str]:
        heard.append([event.event_id for event in events])
        return ["1-milk", "1-food"] if household == "a" else ["2-tea"]

    service = StandIn(answer)
    outcome = task.measure(service, moment(2, 5))
    assert heard == [
        ["line-1", "line-2"],
        ["line-1", "line-2", "line-3", "redemption-0"],
        ["line-1", "line-2", "line-3", "redemption-0", "line-4", "redemption-1", "redemption-2"],
    ]
    assert service.calls[1][1] == {
        "household": "a", "limit": 10, "kind": "offer", "channel": "store", "location": "s1", "at": moment(3, 4)
    }  # fmt: skip
    assert outcome.scores["opportune"]["hit@1"] == [1, 0, 0]
    assert outcome.facts["violations of audience, dates or use"] == 2
