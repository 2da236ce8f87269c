"""The gate: the check that a model must pass before it is published."""

from collections.abc import Mapping

from embeddings.errors import RefusedByGate
from training.evaluate import FEW, Metrics
from training.ways import Way

_METRIC = "ndcg@10"


def gate(metrics: Mapping[Way, Metrics], shares: Mapping[Way, float]) -> None:
    """Refuse a model whose answers a list of popular products would have beaten on the validation window.

    The answers of the service are judged, in all ways in which requests ask, each by its share. Their parts, the towers
    and the other sources of candidates, may each be worse than popularity where the others make up for it.

    Args:
        metrics: from ``evaluate``.
        shares: how often requests ask in each way; one that has none decides nothing.

    Raises:
        RefusedByGate: naming the figures.
    """
    floor, reached = (_mean(metrics, shares, method) for method in ("popular", "served"))
    examples = max(int(of_way["served"]["examples"]) for of_way in metrics.values())
    if not reached >= floor:  # not a number is refused too
        raise RefusedByGate(
            f"what would be served reached {_METRIC} {reached:.4f} on the validation window, less than popularity's "
            f"{floor:.4f}; nothing was published. {_said(examples)}Look at the data and the recipe, or publish it "
            "nonetheless with --no-gate"
        )
    if not reached:
        raise RefusedByGate(
            f"nothing that would be served was bought in the validation window ({_METRIC} 0), and nothing popular "
            "either; nothing was published. Do the channels of the purchases show what was bought on them? See what "
            "opportune-train --check says of the data, or publish it nonetheless with --no-gate"
        )


def _mean(metrics: Mapping[Way, Metrics], shares: Mapping[Way, float], method: str) -> float:
    together = sum(shares.get(way, 0.0) for way in metrics)
    if not together:  # the only way that could be asked in has no share
        return max(of_way[method][_METRIC] for of_way in metrics.values())
    return sum(shares.get(way, 0.0) * of_way[method][_METRIC] for way, of_way in metrics.items()) / together


def _said(examples: int) -> str:
    few = "; of so few chance decides as much as the model does" if examples < FEW else ""
    return f"The figures are means of {examples:,} baskets{few}. "
