from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from embeddings.arrays import Ragged
from embeddings.eligibility import Place
from embeddings.history import EVENT, EVENT_CODES, History
from serving.explain import Reason, reasons
from serving.rank import Ranked, Source
from serving.slot import Model
from tests.world import UNTIL

HERE, ANYWHERE = Place((3,)), Place(None)
# Offer 0 covers products 1 and 2, offer 1 covers product 9.
_OFFERS = SimpleNamespace(products=Ragged.of([[1, 2], [9]]), ends_O=np.array([int(UNTIL.timestamp())] * 2))
MODEL = cast("Model", SimpleNamespace(bundle=SimpleNamespace(catalog=SimpleNamespace(offers=_OFFERS))))
VALID = Reason("valid_until", "Valid until 2025-06-01 00:00 UTC.")


def history(*events: tuple[str, int]) -> History:
    """A past of (type, product)."""
    events_E = np.zeros(len(events), EVENT)
    for place, (kind, product) in enumerate(events):
        events_E[place]["type"], events_E[place]["product"] = EVENT_CODES[kind], product
    return History(events_E, np.zeros(0, np.int32), ())


@pytest.mark.parametrize(
    ("times", "text"), [(1, "Bought once before."), (2, "Bought 2 times before."), (16, "Bought 16 times before.")]
)
def test_bought_before_says_how_often(times: int, text: str):
    past = history(*[("purchase", 7)] * times, ("view", 7), ("purchase", 8))
    assert reasons([Ranked("product", 7, 0.5, "buy_again")], MODEL, past, HERE) == [[Reason("bought_before", text)]]


@pytest.mark.parametrize(
    ("products", "text"),
    [((1, 1, 5), "Covers 1 product bought before."), ((1, 2, 2), "Covers 2 products bought before.")],
)
def test_an_offer_says_how_many_of_its_products_were_bought_and_until_when_it_holds(
    products: tuple[int, ...], text: str
):
    past = history(*(("purchase", product) for product in products), ("view", 2))
    given = reasons([Ranked("offer", 0, 0.5, "buy_again")], MODEL, past, HERE)
    assert given == [[Reason("covers_bought", text), VALID]]


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("due_now", ["due_now", "bought_before"]),
        ("buy_again", ["bought_before"]),
        ("together", ["goes_with_basket"]),
        ("alike", ["bought_by_alike"]),
        ("towers", ["near_taste"]),
        ("trending", ["popular_here"]),
        ("named", ["named"]),
        ("popular", ["popular_here"]),
    ],
)
def test_every_source_has_its_reasons(source: Source, codes: list[str]):
    given = reasons([Ranked("product", 7, 0.5, source)], MODEL, history(("purchase", 7)), HERE)
    assert [one.code for one in given[0]] == codes
    assert all(one.text.endswith(".") for one in given[0])


def test_what_the_towers_propose_is_near_the_customers_taste():
    given = reasons([Ranked("product", 7, 0.5, "towers")], MODEL, history(("purchase", 8)), HERE)
    assert [one.code for one in given[0]] == ["near_taste"]


@pytest.mark.parametrize("past", [history(), history(("dismissal", 7))])
def test_what_the_towers_propose_to_somebody_without_a_history_fits_the_context(past: History):
    given = reasons([Ranked("product", 7, 0.5, "towers")], MODEL, past, HERE)
    assert [one.code for one in given[0]] == ["fits_context"]


@pytest.mark.parametrize(("place", "code"), [(HERE, "popular_here"), (ANYWHERE, "popular")])
@pytest.mark.parametrize("past", [history(), history(("purchase", 1))])
def test_what_is_popular_says_where_and_nothing_of_the_customer(place: Place, code: str, past: History):
    assert [one.code for one in reasons([Ranked("product", 1, 0.5, "popular")], MODEL, past, place)[0]] == [code]


@pytest.mark.parametrize("source", ["towers", "popular"])
def test_every_offer_says_until_when_it_holds(source: str):
    given = reasons([Ranked("offer", 1, 0.5, source)], MODEL, history(), ANYWHERE)  # pyright: ignore[reportArgumentType]
    assert given[0][-1] == VALID
    assert all(one.code and one.text.endswith(".") for one in given[0])
