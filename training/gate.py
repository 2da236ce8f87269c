"""What a model must beat before it may be published."""

from embeddings.errors import RefusedByGate
from training.evaluate import Metrics

_METRIC = "ndcg@10"


def gate(metrics: Metrics) -> None:
    """Refuse a model that a list of what is popular would have beaten on the validation window.

    Both what the towers retrieve and what the service would answer must hold: repeat purchases alone would hide
    towers that have learnt nothing.

    Raises:
        RefusedByGate: naming the figures.
    """
    floor = metrics["popular"][_METRIC]
    for method in ("towers", "served"):
        reached = metrics[method][_METRIC]
        if not reached >= floor:  # not a number is refused too
            raise RefusedByGate(
                f"{method} reached {_METRIC} {reached:.4f} on the validation window, less than popularity's "
                f"{floor:.4f}; nothing was published. Look at the data and the recipe, or publish it nonetheless "
                "with --no-gate"
            )
