"""The gate: nothing passes that is worse than a simple rival, and not by chance."""

import logging
from collections.abc import Mapping

import numpy as np
import pytest

from embeddings.errors import RefusedByGate
from training.comparison import Comparison, Questions
from training.gate import gate
from training.ways import Way

SHARES = {Way.AT_PLACE: 0.6, Way.WITHOUT_PLACE: 0.3, Way.AHEAD: 0.1}
GOOD = Comparison("offers", "auc", "their rates of acceptance", 0.8, 0.7, 0.08, 0.12, 300)
BAD = GOOD._replace(served=0.6, low=-0.12, high=-0.08)


def of_way(popular: float, served: float, customers: int = 500, *, choosing: bool = True) -> Questions:
    """Every second customer is answered right by one and by the other, as often as said on average."""
    some = np.arange(customers)
    noise = np.where(some % 2, 0.05, -0.05)
    return Questions(some, np.add(served, noise), np.subtract(popular, noise), np.full(customers, choosing))


def everywhere(popular: float, served: float, customers: int = 500, *, choosing: bool = True) -> dict[Way, Questions]:
    return dict.fromkeys(SHARES, of_way(popular, served, customers, choosing=choosing))


@pytest.mark.parametrize("served", [0.2, 0.3, 0.199])
def test_what_is_no_worse_than_chance_would_have_it_passes(served: float) -> None:
    gate(everywhere(0.2, served), SHARES, None)


@pytest.mark.parametrize(("customers", "few"), [(13, True), (500, False)])
@pytest.mark.parametrize("served", [0.05, float("nan")])
def test_a_worse_one_is_refused_with_its_figures_and_how_many_customers_they_rest_on(
    served: float, customers: int, few: bool
) -> None:
    with pytest.raises(RefusedByGate) as raised:
        gate(everywhere(0.2, served, customers), SHARES, None)
    assert "what would be served of products" in str(raised.value)
    assert f"of {customers} customers" in str(raised.value)
    assert ("chance" in str(raised.value)) == few


def test_one_that_answers_nothing_right_is_refused_though_popularity_is_no_better() -> None:
    nothing = {
        way: one._replace(served_Q=one.served_Q * 0, rival_Q=one.rival_Q * 0) for way, one in everywhere(0, 0).items()
    }
    with pytest.raises(RefusedByGate, match="--check"):
        gate(nothing, SHARES, None)
    gate(nothing, SHARES, GOOD)  # nothing was bought, but offers tell


def test_every_way_in_which_requests_ask_counts_by_its_share() -> None:
    judged = {Way.AT_PLACE: of_way(0.2, 0.15), Way.WITHOUT_PLACE: of_way(0.2, 0.32), Way.AHEAD: of_way(0.2, 0.2)}
    gate(judged, SHARES, None)  # .6 x .05 lost and .3 x .12 won
    with pytest.raises(RefusedByGate, match=r"0\.1780 beside 0\.2000"):
        gate({**judged, Way.WITHOUT_PLACE: of_way(0.2, 0.2), Way.AHEAD: of_way(0.2, 0.28)}, SHARES, None)
    with pytest.raises(RefusedByGate):  # a way in which nothing could be asked counts for nothing
        gate({Way.AT_PLACE: judged[Way.AT_PLACE]}, SHARES, None)
    # Neither does one in which no request asks.
    gate({Way.AT_PLACE: of_way(0.2, 0.3), Way.NOVEL: of_way(0.2, 0.0)}, SHARES, None)


def test_the_only_way_that_could_be_asked_in_is_judged_though_it_has_no_share() -> None:
    only = {Way.AT_PLACE: 0.0, Way.AHEAD: 1.0}
    gate({Way.AT_PLACE: of_way(0.2, 0.2)}, only, None)
    with pytest.raises(RefusedByGate):
        gate({Way.AT_PLACE: of_way(0.2, 0.1)}, only, None)


def test_bad_offers_are_refused_whatever_products_reach() -> None:
    gate(everywhere(0.2, 0.3), SHARES, GOOD)
    with pytest.raises(RefusedByGate, match="what would be served of offers reached auc"):
        gate(everywhere(0.2, 0.3), SHARES, BAD)


@pytest.mark.parametrize(
    "products",
    [everywhere(0.2, 0.1, 20), everywhere(0.2, 0.1, choosing=False), dict[Way, Questions]()],
    ids=["few customers", "few products", "nothing bought"],
)
def test_where_products_cannot_be_judged_offers_decide_alone(
    products: Mapping[Way, Questions], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "opportune.train"):
        gate(products, SHARES, GOOD)
    assert "the gate judges offers" in caplog.text
    assert "the gate judges products" not in caplog.text
    with pytest.raises(RefusedByGate, match="of offers"):
        gate(products, SHARES, BAD)
    if products:
        with pytest.raises(RefusedByGate, match="of products"):
            gate(products, SHARES, None)
