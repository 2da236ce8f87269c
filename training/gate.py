"""The gate: the check that a model must pass before it is published."""

from embeddings.errors import RefusedByGate
from training.evaluate import Metrics

_METRIC = "ndcg@10"
_FEW = 100


def gate(metrics: Metrics, examples: int) -> None:
    """Refuse a model whose answers a list of popular products would have beaten on the validation window.

    The answers of the service are judged. Their parts, the towers and the other sources of candidates, may each be
    worse than popularity where the others make up for it.

    Args:
        metrics: from ``evaluate``.
        examples: how many baskets they are means of.

    Raises:
        RefusedByGate: naming the figures.
    """
    floor, reached = metrics["popular"][_METRIC], metrics["served"][_METRIC]
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


def _said(examples: int) -> str:
    few = "; of so few chance decides as much as the model does" if examples < _FEW else ""
    return f"The figures are means of {examples:,} baskets{few}. "
