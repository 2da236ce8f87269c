"""The gate: nothing worse than a list of what is popular passes."""

import pytest

from embeddings.errors import RefusedByGate
from training.gate import gate


def metrics(popular: float, towers: float, served: float) -> dict[str, dict[str, float]]:
    found = {"popular": popular, "towers": towers, "served": served}
    return {method: {"ndcg@10": value, "recall@10": 1 - value} for method, value in found.items()}


@pytest.mark.parametrize(("towers", "served"), [(0.2, 0.2), (0.3, 0.2), (0.2, 0.3)])
def test_a_model_at_least_as_good_as_popularity_passes(towers: float, served: float) -> None:
    gate(metrics(0.2, towers, served))


@pytest.mark.parametrize(
    ("towers", "served", "refused"),
    [(0.1999, 0.3, "towers"), (0.3, 0.1999, "served"), (0.0, 0.0, "towers"), (float("nan"), 0.3, "towers")],
)
def test_a_worse_one_is_refused_with_its_figures(towers: float, served: float, refused: str) -> None:
    with pytest.raises(RefusedByGate) as raised:
        gate(metrics(0.2, towers, served))
    reached = {"towers": towers, "served": served}[refused]
    assert f"{refused} reached ndcg@10 {reached:.4f}" in str(raised.value)
    assert "popularity's 0.2000" in str(raised.value)
