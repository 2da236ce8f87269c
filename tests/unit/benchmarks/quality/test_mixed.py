"""Products and offers in one answer: which visits are asked about, what the service has heard by then, what counts."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from benchmarks.quality import mixed as task
from benchmarks.quality.bootstrap import Resamples
from benchmarks.quality.journey import Coupons, Redemption
from benchmarks.quality.outcome import section
from benchmarks.quality.service import Item
from tests.unit.benchmarks.quality.stand_in import StandIn


def moment(day: int, hour: int = 18) -> datetime:
    return datetime(2017, 1, day, hour, tzinfo=UTC)


COUPONS = Coupons(
    products={"1-milk": frozenset({"10"}), "1-tea": frozenset({"20"})},
    campaign={"1-milk": "1", "1-tea": "1"},
    days={"1": (date(2017, 1, 2), date(2017, 1, 8))},
    campaigns={"a": frozenset({"1"})},
    redemptions=[Redemption("a", "1-milk", date(2017, 1, 3)), Redemption("a", "1-tea", date(2017, 1, 5))],
)
LINES = pl.DataFrame(
    [
        ("a", "s1", "10", moment(1)),  # before the campaign
        ("a", "s1", "10", moment(3)),
        ("a", "s1", "11", moment(3)),
        ("b", "s2", "11", moment(4)),  # nothing is for b
        ("a", "s1", "11", moment(5)),
        ("a", "s1", "20", moment(7)),  # all is used up
    ],
    schema=["household_id", "store_id", "product_id", "at"],
    orient="row",
).with_columns(quantity=pl.lit(1), value=pl.lit(2.5))
LAST = LINES.select("household_id", "store_id", "at", day=pl.col("at").dt.date()).unique(maintain_order=True)


class Answering(StandIn):
    """Says the product 11 and the offer of milk, each with its score."""

    def items(
        self,
        household: str | None,  # noqa: ARG002
        channel: str,  # noqa: ARG002
        location: str | None,  # noqa: ARG002
        at: datetime,
        limit: int,
        kinds: Sequence[str],
        **options: object,  # noqa: ARG002
    ) -> list[Item]:
        self.calls.append(("items", {"at": at, "kinds": kinds, "limit": limit, "heard": len(self.events)}))
        both = [Item("1-milk", "offer", 0.5), Item("11", "product", 0.25)]
        return [one for one in both if one.kind in kinds]


def test_visits_with_something_to_redeem_are_asked_about_before_they_are_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "read_coupons", lambda: COUPONS)
    monkeypatch.setattr(task, "purchase_lines", lambda: LINES)
    monkeypatch.setattr(task, "last_transactions", lambda: LAST)
    service = Answering(lambda _household, _events: [])
    outcome = task.measure(service, moment(1))
    asked = [one for name, one in service.calls if name == "items" and one["kinds"] == ["product"]]
    assert [(one["at"], one["heard"]) for one in asked] == [(moment(3), 1), (moment(5), 5)]
    assert outcome.households == ["a", "a"]
    assert outcome.scores["products"]["first_taken"] == [1, 1]
    assert outcome.scores["offers"]["first_taken"] == [1, 0]
    assert outcome.scores["products and offers"]["first_taken"] == [1, 0]
    assert outcome.facts == {"answers led by an offer": 2}
    found = section(outcome, "one", moment(1))
    errors = {method: figures["calibration_error"].value for method, figures in found.methods.items()}
    assert errors == {"products": 0.75, "offers": 0.5, "products and offers": 0.625, "any offer": 0.5}


def test_a_calibration_error_is_the_mean_gap_of_bins_of_equal_size():
    random = np.random.default_rng(0)
    scores_M = random.random(3_000)
    taken_M = (random.random(3_000) < scores_M).astype(np.float64)
    resamples = Resamples([f"h{number % 100}" for number in range(300)])
    questions_M = np.arange(3_000) // 10
    order = np.argsort(scores_M)
    expected = [abs((scores_M - taken_M)[part].sum()) for part in np.array_split(order, 15)]
    found = resamples.calibration(scores_M, taken_M, questions_M)
    assert found.value == pytest.approx(sum(expected) / 3_000, abs=1e-5)
    assert 0 <= found.low <= found.high < 0.1
    far = resamples.calibration(np.ones(3_000), taken_M, questions_M)
    assert far.low <= far.value == pytest.approx(1 - taken_M.mean(), abs=1e-5)
