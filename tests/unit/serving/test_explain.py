from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pytest

from embeddings.arrays import Ragged, Table
from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.tables import TargetType
from embeddings.customer.history import EVENT, EVENT_CODES, History
from embeddings.ranking.profile import profile_of
from embeddings.ranking.statistics import PRODUCT_STATISTICS
from serving.explain import Reason, reasons
from serving.ranked import Kind, Ranked, Source
from serving.view import View
from tests.unit.embeddings import small
from tests.world import UNTIL

HERE, ELSEWHERE, ANYWHERE = Place((0,)), Place((1,)), Place(None)
NOW = int(UNTIL.timestamp())
# Offer 0 covers products 1 and 2, offer 1 covers product 9, offer 2 product 5, which nobody buys.
_OFFERS = SimpleNamespace(products=Ragged.of([[1, 2], [9], [5]]), ends_O=np.array([NOW] * 3))
_FIGURES_NP = np.zeros((10, len(PRODUCT_STATISTICS)), np.float32)
_FIGURES_NP[[1, 7, 9], PRODUCT_STATISTICS.index("month")] = 1_200, 3, 1
_NEAR_NT = np.full((10, 2), -1, np.int32)
_NEAR_NT[[3, 4], 0] = 7, 8
_STATISTICS = SimpleNamespace(
    month_L=np.array([5, 0, 0, 0, 0, 1, 1], np.float32),
    observed=small.observed()._replace(sold=Ragged.of([[1, 5, 7], [1, 5, 7, 9]]), lists_M=np.array([0, 1])),
    products_NP=Table.of(_FIGURES_NP),
    bought_together=SimpleNamespace(rows_NT=Table.of(_NEAR_NT)),
)
MODEL = cast(
    "View",
    SimpleNamespace(
        catalogue=SimpleNamespace(offers=_OFFERS, targets=("purchase",)),
        release=SimpleNamespace(
            newest=SimpleNamespace(statistics=_STATISTICS),
            bundle=SimpleNamespace(manifest=SimpleNamespace(data_cut_off=UNTIL)),
        ),
    ),
)
VALID = Reason("valid_until", "Valid until 2025-06-01 00:00 UTC.")
WEEKS = "in the four weeks before 2025-06-01."


def history(*events: tuple[str, int]) -> History:
    """A past of (type, product), the last a minute ago and the others a second before each other."""
    events_E = np.zeros(len(events), EVENT)
    events_E["at"], events_E["offer"] = NOW - 60 - np.arange(len(events))[::-1], -1
    for place, (kind, product) in enumerate(events):
        events_E[place]["type"], events_E[place]["product"] = EVENT_CODES[kind], product
    return History(events_E, np.zeros(0, np.int32), ())


def why(kind: Kind, row: int, source: Source, past: History, place: Place = HERE) -> list[tuple[str, str]]:
    (given,) = reasons([Ranked(kind, row, 0.5, source)], MODEL, past, place, NOW)
    return [(one.code, one.text) for one in given]


@pytest.mark.parametrize(
    ("times", "text"), [(1, "Bought once before."), (2, "Bought 2 times before."), (16, "Bought 16 times before.")]
)
def test_bought_before_says_how_often(times: int, text: str):
    past = history(*[("purchase", 7)] * times, ("view", 7), ("purchase", 8))
    assert why("product", 7, "buy_again", past) == [("bought_before", text)]


def test_two_lines_of_a_receipt_are_one_purchase():
    past = history(("purchase", 7), ("purchase", 7))
    past.events_E["at"] = NOW - 60
    assert why("product", 7, "buy_again", past) == [("bought_before", "Bought once before.")]


@pytest.mark.parametrize(
    ("products", "text"),
    [((1, 1, 5), "Covers 1 product bought before."), ((1, 2, 2), "Covers 2 products bought before.")],
)
def test_an_offer_says_how_many_of_its_products_were_bought_and_until_when_it_holds(
    products: tuple[int, ...], text: str
):
    past = history(*(("purchase", product) for product in products), ("view", 2))
    assert why("offer", 0, "eligible", past) == [("covers_bought", text), tuple(msgspec.structs.astuple(VALID))]


@pytest.mark.parametrize("past", [history(), history(("purchase", 3))])
def test_an_offer_on_nothing_the_customer_bought_says_what_everybody_buys_of_it_if_anything(past: History):
    here, anywhere = "Covers products bought 5 times here", "Covers products bought once"
    assert why("offer", 0, "eligible", past)[0] == ("covers_popular_here", f"{here} {WEEKS}")
    assert why("offer", 1, "popular", past)[0] == ("covers_popular", f"{anywhere} {WEEKS}")
    assert [code for code, _ in why("offer", 2, "eligible", past)] == ["valid_until"]


@pytest.mark.parametrize("source", ["trending", "popular"])
def test_what_is_popular_says_how_often_and_where_it_was_bought(source: Source):
    assert why("product", 1, source, history()) == [("popular_here", f"Bought 5 times here {WEEKS}")]
    for place in (ELSEWHERE, ANYWHERE):
        assert why("product", 1, source, history(), place) == [("popular", f"Bought 1,200 times {WEEKS}")]
    both = Place((0, 1))
    assert why("product", 7, source, history(), both) == [("popular_here", f"Bought once here {WEEKS}")]
    assert [code for code, _ in why("product", 5, source, history())] == ["eligible"]


def test_what_goes_with_the_basket_is_told_from_what_was_only_viewed():
    past = history(("add_to_cart", 3), ("view", 4))
    assert [code for code, _ in why("product", 7, "bought_together", past)] == ["goes_with_basket"]
    assert [code for code, _ in why("product", 8, "bought_together", past)] == ["goes_with_viewed"]
    assert [code for code, _ in why("product", 4, "bought_together", past)] == ["viewed"]


def test_it_is_about_time_from_half_to_twice_the_usual_gap():
    def due(days_ago: float) -> list[str]:
        statistics = small.statistics()
        past = small.past(*(("purchase", 7, days_ago + gap, 0) for gap in (0.0, 10.0, 20.0)))
        release = SimpleNamespace(
            newest=SimpleNamespace(statistics=statistics),
            profile=lambda bought: profile_of(bought, statistics),  # pyright: ignore
        )
        model = SimpleNamespace(release=release, catalogue=SimpleNamespace(targets=("purchase",)))
        ranked = Ranked("product", 7, 0.5, "due_now")
        (given,) = reasons([ranked], cast("View", model), past, ANYWHERE, small.NOW)
        return [one.text for one in given]

    assert due(9) == ["Bought every 10 days or so, last 9 days ago.", "Bought 3 times before."]
    assert due(19) == ["Bought every 10 days or so, last 19 days ago.", "Bought 3 times before."]
    assert due(4) == due(21) == ["Bought 3 times before."]


@pytest.mark.parametrize(
    ("past", "place", "code", "text"),
    [
        (history(("purchase", 8)), HERE, "near_taste", "bought"),
        (history(), HERE, "fits_context", "place and time"),
        (history(("dismissal", 7)), ANYWHERE, "fits_context", "such a time"),
    ],
)
def test_what_the_towers_propose_is_near_the_customers_taste_or_fits_the_context(
    past: History, place: Place, code: str, text: str
):
    ((found, said),) = why("product", 7, "towers", past, place)
    assert found == code
    assert text in said


@pytest.mark.parametrize(("source", "code"), [("also_bought", "bought_by_alike"), ("named", "named")])
def test_other_sources_have_a_reason_each(source: Source, code: str):
    assert [one for one, _ in why("product", 7, source, history(("purchase", 7)))] == [code]


@pytest.mark.parametrize(
    ("target", "did", "do"),
    [
        ("check_in", "Visited", "visit"),
        ("play", "Played", "play"),
        ("rating", "Rated", "rate"),
        ("view", "Viewed", "view"),
    ],
)
def test_reasons_say_what_is_predicted(target: TargetType, did: str, do: str) -> None:
    catalogue = SimpleNamespace(offers=_OFFERS, targets=(target, "click"))
    model = cast("View", SimpleNamespace(catalogue=catalogue, release=MODEL.release))
    past = history(("purchase", 1), ("purchase", 1))  # as every event of a target type lies in a history

    def told(kind: Kind, row: int, source: Source) -> str:
        return reasons([Ranked(kind, row, 0.5, source)], model, past, HERE, NOW)[0][0].text

    assert told("product", 1, "buy_again") == f"{did} 2 times before."
    assert told("product", 7, "also_bought") == f"{did} by customers who {do} much the same."
    assert told("product", 1, "towers") == f"Close to what this customer has {did.lower()}."
    assert told("product", 9, "trending").startswith(did)
    assert told("offer", 0, "eligible") == f"Covers 1 product {did.lower()} before."
