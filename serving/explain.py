"""Why an item is shown: a stable code with a sentence."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

import numpy as np
from msgspec import Struct

from embeddings.eligibility import Place
from embeddings.history import History
from serving.rank import Ranked
from serving.slot import Model


class Reason(Struct, frozen=True):
    """Why an item is shown.

    Attributes:
        code: stable, for programs: bought_before, due_now, goes_with_basket, bought_by_alike, near_taste, fits_context,
            named, covers_bought, popular_here, popular, valid_until.
        text: one English sentence, for people.
    """

    code: str
    text: str


_NEAR_TASTE = [Reason("near_taste", "Close to what this customer has bought and looked at lately.")]
_FITS_CONTEXT = [Reason("fits_context", "Likely at such a place and time.")]
_GOES_WITH_BASKET = [Reason("goes_with_basket", "Often bought together with what is in the basket now.")]
_BOUGHT_BY_ALIKE = [Reason("bought_by_alike", "Bought by customers who buy much the same.")]
_DUE_NOW = Reason("due_now", "About time again, at the usual pace.")
_POPULAR = [Reason("popular", "Much bought lately.")]
_POPULAR_HERE = [Reason("popular_here", "Much bought at this location lately.")]


_NAMED = [Reason("named", "The likeliest of those asked about.")]
_BY_SOURCE = {"named": _NAMED, "together": _GOES_WITH_BASKET, "alike": _BOUGHT_BY_ALIKE, "towers": _NEAR_TASTE}


def reasons(ranked: Sequence[Ranked], model: Model, history: History, place: Place) -> list[list[Reason]]:
    """The reasons for each ranked item, the weightiest first."""
    times = history.purchases.times([one.row for one in ranked])
    given: list[list[Reason]] = []
    for one, bought in zip(ranked, times, strict=True):
        if one.kind == "offer" and one.source != "popular":
            why = [_covers(one, model, history)]
        elif one.source == "due_now":
            why = [_DUE_NOW, *_bought(bought)]
        elif one.source == "buy_again":
            why = _bought(bought)
        elif one.source in ("popular", "trending"):
            why = _POPULAR_HERE if place.rows else _POPULAR
        elif one.source == "towers" and not history.tells:
            why = _FITS_CONTEXT
        else:
            why = _BY_SOURCE[one.source]
        if one.kind == "offer":
            ends = datetime.fromtimestamp(int(model.bundle.catalog.offers.ends_O[one.row]), UTC)
            why = [*why, Reason("valid_until", f"Valid until {ends:%Y-%m-%d %H:%M} UTC.")]
        given.append(why)
    return given


@cache
def _bought(times: int) -> list[Reason]:
    return [Reason("bought_before", "Bought once before." if times == 1 else f"Bought {times} times before.")]


def _covers(one: Ranked, model: Model, history: History) -> Reason:
    covered = model.bundle.catalog.offers.products[one.row]
    count = len(np.intersect1d(history.purchases.rows_R, covered))
    return Reason("covers_bought", f"Covers {count} {'product' if count == 1 else 'products'} bought before.")
