"""The gate: nothing worse than a list of what is popular passes."""

import pytest

from embeddings.errors import RefusedByGate
from training.gate import gate


def metrics(popular: float, towers: float, served: float) -> dict[str, dict[str, float]]:
    found = {"popular": popular, "towers": towers, "served": served}
    return {method: {"ndcg@10": value, "recall@10": 1 - value} for method, value in found.items()}


@pytest.mark.parametrize(("towers", "served"), [(0.2, 0.2), (0.0, 0.2), (0.1999, 0.3), (float("nan"), 0.3)])
def test_what_is_served_is_judged_whatever_the_towers_reach_alone(towers: float, served: float) -> None:
    gate(metrics(0.2, towers, served), 500)


@pytest.mark.parametrize(("examples", "few"), [(13, True), (500, False)])
@pytest.mark.parametrize("served", [0.1999, 0.0, float("nan")])
def test_a_worse_one_is_refused_with_its_figures_and_how_many_baskets_they_rest_on(
    served: float, examples: int, few: bool
) -> None:
    with pytest.raises(RefusedByGate) as raised:
        gate(metrics(0.2, 0.3, served), examples)
    assert f"ndcg@10 {served:.4f}" in str(raised.value)
    assert "popularity's 0.2000" in str(raised.value)
    assert f"means of {examples} baskets" in str(raised.value)
    assert ("chance" in str(raised.value)) == few


def test_one_that_answers_nothing_right_is_refused_though_popularity_is_no_better() -> None:
    with pytest.raises(RefusedByGate, match="--check"):
        gate(metrics(0.0, 0.0, 0.0), 500)
