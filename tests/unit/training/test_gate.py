"""The gate: nothing worse than a list of what is popular passes."""

import pytest

from embeddings.errors import RefusedByGate
from training.evaluate import Metrics
from training.gate import gate
from training.ways import Way

SHARES = {Way.AT_PLACE: 0.6, Way.WITHOUT_PLACE: 0.3, Way.AHEAD: 0.1}


def of_way(popular: float, towers: float, served: float, examples: int = 500) -> Metrics:
    found = {"popular": popular, "towers": towers, "served": served}
    metrics = {method: {"ndcg@10": value, "recall@10": 1 - value} for method, value in found.items()}
    return metrics | {"served": metrics["served"] | {"examples": examples}}


def metrics(popular: float, towers: float, served: float, examples: int = 500) -> dict[Way, Metrics]:
    return dict.fromkeys(SHARES, of_way(popular, towers, served, examples))


@pytest.mark.parametrize(("towers", "served"), [(0.2, 0.2), (0.0, 0.2), (0.1999, 0.3), (float("nan"), 0.3)])
def test_what_is_served_is_judged_whatever_the_towers_reach_alone(towers: float, served: float) -> None:
    gate(metrics(0.2, towers, served), SHARES)


@pytest.mark.parametrize(("examples", "few"), [(13, True), (500, False)])
@pytest.mark.parametrize("served", [0.1999, 0.0, float("nan")])
def test_a_worse_one_is_refused_with_its_figures_and_how_many_baskets_they_rest_on(
    served: float, examples: int, few: bool
) -> None:
    with pytest.raises(RefusedByGate) as raised:
        gate(metrics(0.2, 0.3, served, examples), SHARES)
    assert f"ndcg@10 {served:.4f}" in str(raised.value)
    assert "popularity's 0.2000" in str(raised.value)
    assert f"means of {examples} baskets" in str(raised.value)
    assert ("chance" in str(raised.value)) == few


def test_one_that_answers_nothing_right_is_refused_though_popularity_is_no_better() -> None:
    with pytest.raises(RefusedByGate, match="--check"):
        gate(metrics(0.0, 0.0, 0.0), SHARES)


def test_every_way_in_which_requests_ask_counts_by_its_share() -> None:
    judged = metrics(0.2, 0.0, 0.2) | {Way.AT_PLACE: of_way(0.2, 0.0, 0.19), Way.WITHOUT_PLACE: of_way(0.2, 0.0, 0.23)}
    gate(judged, SHARES)  # .6 x .01 lost and .3 x .03 won
    with pytest.raises(RefusedByGate, match=r"0\.1990.*0\.2000"):
        gate(judged | {Way.AHEAD: of_way(0.2, 0.0, 0.16)}, SHARES)
    with pytest.raises(RefusedByGate):  # a way in which nothing could be asked counts for nothing
        gate({Way.AT_PLACE: judged[Way.AT_PLACE]}, SHARES)


def test_the_only_way_that_could_be_asked_in_is_judged_though_it_has_no_share() -> None:
    gate({Way.AT_PLACE: of_way(0.2, 0.0, 0.2)}, {Way.AT_PLACE: 0.0, Way.AHEAD: 1.0})
