"""Whatever the service hears as events, training from the database reads, and says what it leaves out."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.catalogue.changes import (
    AnyState,
    CustomerState,
    LocationState,
    OfferState,
    ProductState,
    Withdrawal,
)
from embeddings.catalogue.tables import EVENT_TYPES, EVENTS
from embeddings.database.changelog import write
from embeddings.database.migrate import prepare
from serving.api.events import EventsDecoder
from serving.state.event import Event
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from tests.integration.server import Postgres, on_connection
from tests.world import UNTIL
from training.config import Recipe, TablesConfig
from training.datasets import Dataset
from training.datasets.database import tables_of
from training.datasets.summary import open_and_summarise

RECIPE = Recipe(targets=("purchase",))
IDS = st.one_of(
    st.sampled_from(
        ["known", "4.00635E+12", "1.5E10", "[a]", "{a", " a ", "a|b", "NULL", "\\N", "\\.", '"', 'a"",b', ","]
    ),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=256),
    st.integers(-(2**63), 2**63 - 1),
)
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=256)
MOMENTS = st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
HEARD = st.fixed_dictionaries(
    {
        "type": st.sampled_from(EVENT_TYPES),
        "customer_id": IDS,
        "at": MOMENTS.map(datetime.isoformat),
    },
    optional={
        "product_id": IDS,
        "offer_id": IDS,
        "location": IDS,
        "channel": st.one_of(st.just("web"), WORDS),
        "quantity": st.floats(0, 1e9, exclude_min=True),
        "value": st.floats(0, 1e12),
        "recommendation_id": WORDS,
        "context": st.dictionaries(st.sampled_from(["weather", "not declared"]), WORDS),
    },
).filter(lambda one: "product_id" in one or "offer_id" in one)
NAMES = [column.name for column in EVENTS.columns]


def known(url: str, *changes: AnyState | Withdrawal) -> None:
    """Have the catalogue hold some things."""

    async def done() -> None:
        await prepare(url)

    asyncio.run(done())
    for one in changes:
        on_connection(url, lambda connection, one=one: write(connection, [one], "me"))


def heard(url: str, events: Sequence[dict[str, Any]]) -> None:
    """Have the service store events, decoded as those of a request are."""
    body = {"events": [{"event_id": str(place), **one} for place, one in enumerate(events)]}
    decoded = [one for one in EventsDecoder().decode(msgspec.json.encode(body)) if isinstance(one, Event)]
    assert len(decoded) == len(events)

    async def stored() -> None:
        store = EventStore(url, Invalidations(1))
        async with store.connected():
            for one in decoded:  # each by itself: a group is stored in the order of ids
                assert len(await store.add([one], 2**40)) == 1

    asyncio.run(stored())


@contextmanager
def opened(url: str, recipe: Recipe = RECIPE) -> Generator[Dataset]:
    """The tables of a database, checked and looked at, as training does."""
    with tables_of("postgres", recipe, url) as source:
        yield open_and_summarise(source, recipe, None).dataset


def event(**said: Any) -> dict[str, Any]:
    return {"type": "view", "customer_id": "c", "at": UNTIL.isoformat(), "product_id": "p", **said}


def text(value: object) -> str | None:
    return None if value is None else str(value)


def row_of(one: dict[str, Any]) -> tuple[Any, ...] | None:
    """What is to be read of an event: the catalogue knows the location, the offer and the product ``known`` alone."""
    product, offer = text(one.get("product_id")), text(one.get("offer_id"))
    offer = offer if offer == "known" else None
    if product is None and offer is None:
        return None
    return (
        text(one["customer_id"]),
        one["type"],
        datetime.fromisoformat(one["at"]),
        product,
        offer,
        "known" if one.get("location") == "known" else None,
        one["channel"] if one.get("channel") in RECIPE.channels else None,
        None,
        float(one.get("quantity", 1)),
        one.get("value"),
        one.get("context", {}).get("weather"),
    )


@settings(max_examples=8)
@given(st.lists(HEARD, min_size=1, max_size=60))
def test_whatever_is_heard_is_read_as_it_was_said(postgres: Postgres, events: list[dict[str, Any]]):
    url = postgres.database()
    offer = OfferState(id="known", products=("known",), starts=UNTIL, ends=UNTIL)
    known(url, LocationState(id="known"), ProductState(id="known"), offer)
    heard(url, events)
    declared = msgspec.structs.replace(RECIPE, tables=TablesConfig(context_attributes=("weather",)))
    expected = [row for one in events if (row := row_of(one)) is not None]
    if not expected:
        return  # nothing to read, which is refused
    with opened(url, declared) as dataset:
        found = dataset.events.collect()
    assert found.columns == [*NAMES, "weather"]
    assert found.rows() == expected


def test_what_is_not_known_any_more_is_counted(postgres: Postgres):
    url = postgres.database()
    known(url, LocationState(id="north"), OfferState(id="o", products=(), starts=UNTIL, ends=UNTIL))
    heard(
        url,
        [
            event(location="gone"),
            event(location="gone", channel="tv", offer_id="old"),
            event(location="north", channel="web", offer_id="o"),
            event(type="redemption", product_id=None, offer_id="old"),
        ],
    )
    with opened(url) as dataset:
        found = dataset.events.select("location", "channel", "offer_id", "product_id").collect().rows()
    assert found == [(None, None, None, "p"), (None, None, None, "p"), ("north", "web", "o", "p")]
    said = [next(word for word in note.replace(",", " ").split() if word.isdigit()) for note in dataset.notes[:4]]
    assert said == ["1", "2", "2", "1"], "by channel, location and offer, and what is left out"


def test_what_no_table_lists_is_taken_from_events(postgres: Postgres):
    url = postgres.database()
    known(url)
    heard(url, [event(location="north", offer_id="o", channel="web")])
    with opened(url) as dataset:
        assert dataset.events.select("location", "offer_id").collect().rows() == [("north", "o")]
        assert dataset.locations.collect()["location"].to_list() == ["north"]
    assert not any("not know" in note for note in dataset.notes)


@pytest.mark.parametrize("refused", [True, False])
def test_products_that_are_not_listed_are_left_out_where_the_recipe_refuses_them(postgres: Postgres, refused: bool):
    url = postgres.database()
    known(url, ProductState(id="listed"), ProductState(id="withdrawn"), Withdrawal(kind="product", id="withdrawn"))
    heard(url, [event(product_id=one) for one in ("listed", "withdrawn", "new")])
    tables = TablesConfig(unlisted_products="refuse" if refused else "keep")
    with opened(url, msgspec.structs.replace(RECIPE, tables=tables)) as dataset:
        found = dataset.events.collect()["product_id"].to_list()
    assert found == (["listed", "withdrawn"] if refused else ["listed", "withdrawn", "new"])


def test_withdrawn_customers_and_odd_master_data_are_read(postgres: Postgres):
    url = postgres.database()
    odd = {"price": "high", "*": "star", "^a$": "pattern", "\u200b": "unseen", "colour": 'red, "dark"\n or not'}
    known(
        url,
        ProductState(id=" [1.5E10] ", attributes=odd, price=2.5),
        OfferState(id="o", name="n" * 300 + "\n", products=(" [1.5E10] ",), starts=UNTIL, ends=UNTIL),
        CustomerState(id="gone"),
        Withdrawal(kind="customer", id="gone"),
    )
    heard(url, [event(customer_id="gone"), event(product_id=" [1.5E10] ")])
    with opened(url) as dataset:
        (product,) = dataset.products.filter(pl.col("product_id") != "p").collect().to_dicts()
        assert dataset.events.collect()["customer_id"].to_list() == ["c"]
    assert product["price"] == 2.5
    assert product["colour"] == odd["colour"]
    left_out = [note for note in dataset.notes if note.startswith("attribute")]
    assert len(left_out) == 4, "each is named"
