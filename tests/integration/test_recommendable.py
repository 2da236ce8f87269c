"""What the table of products says is never shown is bought and learnt from, and shown by no route."""

from collections.abc import Generator
from pathlib import Path

import polars as pl
import pytest

from tests.integration.server import Server, ids
from tests.world import UNTIL, tables, write_world
from training.config import Recipe
from training.job import run

WITHHELD = 5


@pytest.fixture(scope="module")
def most_bought() -> list[str]:
    bought = tables()["events"].filter((pl.col("at") < UNTIL) & (pl.col("type") == "purchase"))
    return bought["product_id"].value_counts(sort=True)["product_id"].head(2 * WITHHELD).to_list()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, anybodys: Path, recipe: Recipe, most_bought: list[str]
) -> Generator[Server]:
    folder, store = tmp_path_factory.mktemp("withheld"), anybodys / "withheld"
    write_world(folder)
    withheld = pl.col("product_id").is_in(most_bought[:WITHHELD])
    tables()["products"].with_columns(recommendable=~withheld).write_parquet(folder / "products.parquet")
    run(str(folder), store, recipe, until=UNTIL, device="cpu", gated=True)
    server = Server(store)
    yield server
    server.stop()


@pytest.mark.parametrize("channel", ["web", "store"])
@pytest.mark.parametrize("customer", [None, "c017"])
def test_what_is_withheld_is_not_recommended(
    server: Server, most_bought: list[str], channel: str, customer: str | None
) -> None:
    shown = ids(server.recommend(customer, channel, limit=100))
    assert len(shown) > WITHHELD
    assert not set(most_bought[:WITHHELD]) & set(shown)
    assert set(most_bought[WITHHELD:]) & set(shown)


@pytest.mark.parametrize("channel", ["", "?channel=web"])
def test_nor_is_it_similar_to_anything_and_others_are_similar_to_it(
    server: Server, most_bought: list[str], channel: str
) -> None:
    for product in (most_bought[0], most_bought[-1]):
        answer = server.client.get(f"/v1/products/{product}/similar{channel}{'&' if channel else '?'}limit=100").json()
        shown = {one["id"] for one in answer["items"]}
        assert len(shown) > WITHHELD
        assert not set(most_bought[:WITHHELD]) & shown
