"""Completing baskets: how they are split, and what the service is told when."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from benchmarks.quality import completion
from benchmarks.quality.completion import added, halves
from benchmarks.quality.journey import Basket, Journey
from tests.unit.benchmarks.quality.stand_in import StandIn

AT = datetime(2017, 12, 5, 12, tzinfo=UTC)


def basket(household: str, size: int) -> Basket:
    return Basket(household, "367", AT, tuple(str(number) for number in range(size)))


@pytest.mark.parametrize("size", [4, 5, 30])
def test_halves_are_disjoint_and_make_up_the_basket(size: int):
    split = halves(basket("1029", size))
    assert len(split.known) == size // 2
    assert not set(split.known) & set(split.missing)
    assert set(split.known) | set(split.missing) == set(basket("1029", size).products)


def test_halves_are_the_same_every_time_and_differ_between_households():
    assert halves(basket("1029", 30)) == halves(basket("1029", 30))
    assert halves(basket("1029", 30)) != halves(basket("1030", 30))


@pytest.mark.parametrize("size", [2, 200])
def test_everything_is_added_before_the_moment_and_a_second_apart(size: int):
    events = added(basket("1029", size), [str(number) for number in range(size)])
    moments = [event.at for event in events]
    assert moments == [moments[0] + timedelta(seconds=place) for place in range(size)]
    assert moments[0] <= AT - timedelta(seconds=60)
    assert moments[-1] < AT
    assert len({event.event_id for event in events}) == size
    assert {(event.type, event.location, event.channel) for event in events} == {("add_to_cart", "367", "store")}


def test_everything_is_asked_before_the_first_event(monkeypatch: pytest.MonkeyPatch):
    baskets = [basket("1", 4), basket("2", 3), basket("3", 6)]
    nothing = pl.DataFrame()

    def tiny(_until: datetime) -> Journey:
        return Journey(nothing, nothing, baskets)

    monkeypatch.setattr(completion, "journey", tiny)
    service = StandIn(
        lambda household, events: (
            halves(next(one for one in baskets if one.household == household)).missing if events else []
        )
    )
    outcome = completion.measure(service, AT)
    assert [call for call, _ in service.calls] == ["recommend"] * 4 + ["report"] * 2 + ["recommend"] * 2
    asked = [said for call, said in service.calls if call == "recommend"]
    assert asked[:2] == asked[4:], "the same question before and after"
    assert [one["exclude"] for one in asked[:2]] == [halves(one).known for one in (baskets[0], baskets[2])]
    assert [one["exclude"] for one in asked[2:4]] == [[], []]
    assert list(outcome.households) == ["1", "3"], "a basket of three is too small"
    assert outcome.scores["without"]["ndcg@10"] == [0, 0]
    assert outcome.scores["with"]["ndcg@10"] == [1, 1]
