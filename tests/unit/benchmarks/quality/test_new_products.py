"""What is new to a household, and what is new to everybody."""

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
import pytest

from benchmarks.quality import new_products, novel
from benchmarks.quality.journey import Basket, Journey
from benchmarks.quality.service import Event
from embeddings.errors import InvalidInput
from tests.unit.benchmarks.quality.stand_in import StandIn

UNTIL = datetime(2017, 12, 4, tzinfo=UTC)
COLUMNS = ["household_id", "product_id", "basket_id", "at"]


def lines(pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame([(*pair, 1, UNTIL) for pair in pairs], schema=COLUMNS, orient="row")


PAST = lines([("a", "1"), ("a", "2"), ("b", "3")])
FUTURE = lines([("a", "1"), ("a", "3"), ("a", "8"), ("a", "8"), ("b", "3"), ("b", "9"), ("c", "1"), ("d", "2")])
FOUND = Journey(PAST, FUTURE, [Basket(household, "s1", UNTIL, ("1",)) for household in "abcd"])


def found(_until: datetime) -> Journey:
    return FOUND


def test_new_to_a_household_is_what_it_never_bought():
    assert novel.first_bought(FOUND) == {"a": {"3", "8"}, "b": {"9"}, "c": {"1"}, "d": {"2"}}


def test_only_products_that_nobody_bought_before_are_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(new_products, "journey", found)

    def answer(household: str, _events: Sequence[Event]) -> list[str]:
        return ["8"] if household == "a" else []

    service = StandIn(answer)
    outcome = new_products.measure(service, UNTIL)
    assert [(said["household"], said["items"], said["limit"]) for _, said in service.calls] == [
        ("a", ["8", "9"], 50),
        ("b", ["8", "9"], 50),
    ]
    assert outcome.scores == {"opportune": {"recall@50": [1, 0]}, "random": {"recall@50": [1, 1]}}
    assert outcome.facts == {"new products": 2}


def test_more_new_products_than_a_request_may_name_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(new_products, "journey", found)
    monkeypatch.setattr(new_products, "LARGEST", 1)
    with pytest.raises(InvalidInput, match="at most 1 new products, found 2"):
        new_products.measure(StandIn(lambda _household, _events: []), UNTIL)
