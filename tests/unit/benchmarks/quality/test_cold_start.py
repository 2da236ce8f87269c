"""Cold start: what a newcomer is asked as, what is reported of them, and what is popular in a place."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest

from benchmarks.quality import cold_start
from benchmarks.quality.cold_start import bought, newcomer, popular_here
from benchmarks.quality.journey import Basket, Journey
from benchmarks.quality.outcome import section
from benchmarks.quality.service import Event
from tests.unit.benchmarks.quality.stand_in import StandIn
from tests.unit.embeddings import small

AT = datetime(2017, 12, 5, 12, tzinfo=UTC)
BASKETS = [Basket(household, "l0", AT, tuple(f"{household}-{number}" for number in range(6))) for household in "ab"]


def test_what_is_first_bought_is_reported_in_order_before_the_moment() -> None:
    events = bought(BASKETS[0], 3)
    assert [event.product_id for event in events] == ["a-0", "a-1", "a-2"]
    assert [event.at for event in events] == [AT - timedelta(seconds=60 - place) for place in range(3)]
    assert {(event.type, event.customer_id, event.location) for event in events} == {("purchase", "newcomer-3-a", "l0")}
    assert len({event.event_id for count in (1, 3) for event in bought(BASKETS[0], count)}) == 4


def test_popular_here_is_the_order_of_recent_purchases_at_the_store() -> None:
    catalogue = small.catalogue()
    catalogue = catalogue._replace(channels={"store": catalogue.channels["web"]})
    (found,) = popular_here(catalogue, small.observed(), [BASKETS[0]])
    carried = [f"p{row}" for row in catalogue.locations.assortment[0].tolist()]
    local = dict(zip(carried, small.observed().popularity_L[: len(carried)].tolist(), strict=True))
    assert max(local, key=lambda one: local[one]) in found
    assert len(found) == len(set(found)) == 10


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Nobody gets nothing right; a newcomer what is left of the basket, best first."""
    small_basket = Basket("c", "l0", AT, ("c-0", "c-1"))

    def tiny(_until: datetime) -> Journey:
        return Journey(pl.DataFrame(), pl.DataFrame(), [*BASKETS, small_basket])

    def answer(who: str, events: Sequence[Event]) -> list[str]:
        known = [event.product_id for event in events if event.customer_id == who]
        return [f"{who[-1]}-{number}" for number in range(6) if f"{who[-1]}-{number}" not in known] if known else []

    def usual(_catalogue: object, _observed: object, baskets: Sequence[Basket]) -> list[list[str]]:
        return [[*basket.products[:1], *"0123456789"] for basket in baskets]

    def attributes() -> dict[str, dict[str, str]]:
        return {"a": {"age": "65+"}, "c": {"age": "19-24"}}

    monkeypatch.setattr(cold_start, "journey", tiny)
    monkeypatch.setattr(cold_start, "household_attributes", attributes)
    monkeypatch.setattr(cold_start, "popular_here", usual)
    monkeypatch.setattr(cold_start.Catalogue, "load", Mock())
    monkeypatch.setattr(cold_start.Statistics, "load", Mock())
    return StandIn(answer)


def test_everybody_is_asked_as_nobody_then_described_then_after_each_purchase(service: StandIn) -> None:
    outcome = cold_start.measure(service, AT)
    asked = [said for call, said in service.calls if call == "recommend"]
    assert list(outcome.households) == ["a", "b"], "a basket of two is too small"
    assert len(asked) == 2 * 5
    assert all(one["household"] is None for one in asked)
    assert ["customer_id" in one for one in asked] == [False] * 4 + [True] * 6
    assert [one["attributes"] for one in asked[2:4]] == [{"age": "65+"}, {}]
    assert [one["customer_id"] for one in asked[4:6]] == [newcomer(basket, 1) for basket in BASKETS]
    assert [one["exclude"] for one in asked[6:8]] == [basket.products[:3] for basket in BASKETS]
    assert outcome.facts == {"households with attributes": 1}


def test_what_is_reported_is_looked_for_no_more_by_either_side(service: StandIn) -> None:
    scores = cold_start.measure(service, AT).scores
    assert scores["context"]["recall@10"] == [0, 0]
    assert scores["popular here"]["recall@10"] == pytest.approx([1 / 6, 1 / 6])
    for count in cold_start.FIRST:
        assert scores[f"after {count}"]["ndcg@10"] == pytest.approx([1, 1])
        assert scores[f"popular here, {count} known"]["recall@10"] == [0, 0]


def test_only_what_answers_the_same_question_is_compared(service: StandIn) -> None:
    found = section(cold_start.measure(service, AT), "v1", AT)
    assert [(one.how, one.ours, one.theirs) for one in found.compared] == [
        ("gain", "context", "popular here"),
        ("gain", "context and attributes", "context"),
        *(("gain", f"after {count}", f"popular here, {count} known") for count in cold_start.FIRST),
    ]
    assert np.isfinite(found.methods["after 5"]["ndcg@10"].value)
