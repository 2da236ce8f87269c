"""Why an item is shown: a stable code with a sentence."""

from datetime import UTC, datetime

import numpy as np
from msgspec import Struct

from embeddings.eligibility import Place
from embeddings.history import History
from serving.rank import Ranked
from serving.slot import Model


class Reason(Struct, frozen=True):
    """Why an item is shown.

    Attributes:
        code: stable, for programs: bought_before, covers_bought, near_taste, popular_here, popular, valid_until.
        text: one English sentence, for people.
    """

    code: str
    text: str


def reasons(one: Ranked, model: Model, history: History | None, place: Place) -> list[Reason]:
    """The reasons for one ranked item, the weightiest first."""
    given: list[Reason] = []
    if one.source == "popular":
        given.append(_popular(place))
    elif one.source == "towers":
        given.append(Reason("near_taste", "Close to what this customer has bought and looked at lately."))
    elif history is not None:
        given.append(_bought(one, model, history))
    if one.kind == "offer":
        ends = datetime.fromtimestamp(int(model.bundle.catalog.offers.ends_O[one.row]), UTC)
        given.append(Reason("valid_until", f"Valid until {ends:%Y-%m-%d %H:%M} UTC."))
    return given


def _popular(place: Place) -> Reason:
    if place.rows:
        return Reason("popular_here", "Much bought at this location lately.")
    return Reason("popular", "Much bought lately.")


def _bought(one: Ranked, model: Model, history: History) -> Reason:
    bought = history.purchases
    if one.kind == "product":
        times = int(bought.times_R[bought.rows_R.searchsorted(one.row)])
        return Reason("bought_before", "Bought once before." if times == 1 else f"Bought {times} times before.")
    covered = model.bundle.catalog.offers.products[one.row]
    count = len(np.intersect1d(bought.rows_R, covered))
    return Reason("covers_bought", f"Covers {count} {'product' if count == 1 else 'products'} bought before.")
