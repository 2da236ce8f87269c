"""One set of ids: whatever takes one, training from any kind of file or a route, takes the same."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st
from litestar.datastructures import MultiDict

from embeddings.catalogue.columns import ChannelRule
from embeddings.catalogue.context import LONGEST_ID
from embeddings.errors import InvalidInput, InvalidTables
from serving.api.decode import BodyDecoder, read_query
from serving.api.products import SimilarQuery
from serving.recommendation import RecommendRequest
from tests.world import UNTIL
from training.config import Recipe
from training.datasets import open_dataset

NOT_ALLOWED = [*range(0x20), *range(0x7F, 0xA0)]

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=LONGEST_ID + 2)
rarely_allowed = st.tuples(ids, st.sampled_from([chr(one) for one in NOT_ALLOWED]), ids).map("".join)
at_the_limit = st.tuples(st.characters(exclude_categories=["Cs", "Cc"]), st.integers(LONGEST_ID - 1, LONGEST_ID + 1))


def of_customers(one: str) -> None:
    """Refuse, as training does, an id in Parquet tables; an event without one is a guest's, a customer has one."""
    with tempfile.TemporaryDirectory() as folder:
        event = {"customer_id": [one], "type": ["view"], "at": [UNTIL], "product_id": ["p"]}
        pl.DataFrame(event).write_parquet(Path(folder) / "events.parquet")
        pl.DataFrame({"customer_id": [one]}).write_parquet(Path(folder) / "customers.parquet")
        open_dataset(folder, channels=["web"], now=UNTIL)


def of_context(one: str) -> None:
    body = msgspec.json.encode({"customer_id": one, "context": {"channel": one, "location": one}, "exclude": [one]})
    BodyDecoder(RecommendRequest).decode(body)


def of_items(one: str) -> None:
    BodyDecoder(RecommendRequest).decode(msgspec.json.encode({"context": {"channel": "web"}, "items": [one]}))


def of_query(one: str) -> None:
    read_query(MultiDict([("channel", "web"), ("location", one)]), SimilarQuery)


def of_recipe(one: str) -> None:
    msgspec.convert({"channels": {one: ChannelRule.EVERYTHING}}, Recipe)


TAKERS: list[Callable[[str], None]] = [of_customers, of_context, of_items, of_query, of_recipe]


def takes(taker: Callable[[str], None], one: str) -> bool:
    try:
        taker(one)
    except (InvalidInput, InvalidTables, msgspec.ValidationError):
        return False
    return True


def is_id(one: str) -> bool:
    return 1 <= len(one) <= LONGEST_ID and not any(ord(letter) in NOT_ALLOWED for letter in one)


@given(ids | rarely_allowed | at_the_limit.map(lambda drawn: drawn[0] * drawn[1]))
@example("")
@example("a\n")
@example("\n")
@example("a\0b")
@example("\N{PILE OF POO}" * LONGEST_ID)
@example("\N{PILE OF POO}" * (LONGEST_ID + 1))
def test_whatever_takes_ids_takes_the_same_ones(one: str):
    assert {taker.__name__: takes(taker, one) for taker in TAKERS} == {taker.__name__: is_id(one) for taker in TAKERS}
