"""The gate: the check that a model must pass before it is published."""

import logging
from collections.abc import Mapping

from embeddings.errors import RefusedByGate
from training.comparison import Comparison, Questions, can_be_judged, compare_products
from training.evaluate import FEW, JUDGED_BY
from training.ways import Way

_log = logging.getLogger("opportune.train")


def gate(asked: Mapping[Way, Questions], shares: Mapping[Way, float], offers: Comparison | None) -> None:
    """Refuse a model whose answers on the validation window are worse than a simple rival's, and not by chance.

    The answers of the service are judged. Their parts, the towers and the other sources of candidates, may each be
    worse than popularity where the others make up for it. Products are judged beside what is popular, in all ways in
    which requests ask, each by its share; offers where they can be measured. Where products cannot be judged, as there
    are few or hardly anything was bought, offers alone decide, if they can be measured.

    Args:
        asked: from ``evaluate``.
        shares: how often requests ask in each way; one that has none decides nothing.
        offers: the order of offers beside its rival; None where it cannot be measured.

    Raises:
        RefusedByGate: naming the figures.
    """
    products = compare_products(asked, shares, JUDGED_BY) if asked else None
    if products is not None and offers is not None and not can_be_judged(asked, products):
        _log.info("products do not decide, as too few are bought or to be chosen from: %s", products)
        products = None
    judges = [one for one in (products, offers) if one is not None]
    for one in judges:
        _log.info("the gate judges %s: %s", one.what, one)
    for one in judges:
        if one.is_worse:
            raise RefusedByGate(
                f"what would be served of {one.what} reached {one} on the validation window; nothing was published. "
                f"{_said(one.customers)}Look at the data and the recipe, or publish it nonetheless with --no-gate"
            )
    if products is not None and not products.served:
        raise RefusedByGate(
            f"nothing that would be served was bought in the validation window ({products}); nothing was published. "
            f"{_said(products.customers)}Do the channels of the purchases show what was bought on them? See what "
            "opportune-train --check says of the data, or publish it nonetheless with --no-gate"
        )


def _said(customers: int) -> str:
    return "Of so few customers chance decides as much as the model does. " if customers < FEW else ""
