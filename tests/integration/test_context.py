"""What the recipe declares of situations is learnt from events, asked with and reported: here, the weather."""

import asyncio
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from tests.integration.server import Postgres, Server, ids
from tests.world import UNTIL
from training.config import Recipe, TablesConfig
from training.job import run

WEATHER = {"rain": range(10), "sun": range(10, 20)}
CUSTOMERS, PRODUCTS, WEEKS = 150, 60, 14


def events() -> pl.DataFrame:
    """Weekly visits: something of one's own, and two products of the ten that go with the weather."""
    random = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for customer in range(CUSTOMERS):
        for week in range(WEEKS):
            at = UNTIL - timedelta(weeks=week + 1) + timedelta(days=customer % 7, seconds=customer)
            weather = "rain" if random.random() < 0.5 else "sun"
            products = {20 + customer % 40, *random.choice(WEATHER[weather], 2, replace=False).tolist()}
            rows += [
                {
                    "customer_id": f"c{customer}",
                    "type": "purchase",
                    "at": at,
                    "product_id": f"p{product:02d}",
                    "channel": "web",
                    "weather": weather if customer % 10 else None,
                }
                for product in sorted(products)
            ]
    return pl.DataFrame(rows, schema_overrides={"weather": pl.String})


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, anybodys: Path, recipe: Recipe, database: str
) -> Generator[Server]:
    folder, store = tmp_path_factory.mktemp("weather"), anybodys / "weather"
    events().write_parquet(folder / "events.parquet")
    recipe = replace(recipe, tables=TablesConfig(context_attributes=("weather",)))
    recipe = replace(
        recipe, ranker=replace(recipe.ranker, type_attribute="", category_attribute="", maker_attribute="")
    )
    run(str(folder), store, recipe, until=UNTIL, device="cpu", gated=True)
    server = Server(store, "--database", database)
    yield server
    server.stop()


def asked(server: Server, customer: str | None, **attributes: str) -> dict[str, float]:
    """Scores by product."""
    body = {"context": {"channel": "web", "at": UNTIL.isoformat(), "attributes": attributes}, "limit": 60}
    answer = server.client.post("/v1/recommend", json=body | ({"customer_id": customer} if customer else {}))
    assert answer.status_code == 200, answer.text
    return {item["id"]: item["score"] for item in answer.json()["items"]}


def fitting(scores: dict[str, float], weather: str) -> int:
    """How many of the first ten go with the weather."""
    first = sorted(scores, key=scores.__getitem__, reverse=True)[:10]
    return sum(int(product[1:]) in WEATHER[weather] for product in first)


@pytest.mark.parametrize("customer", [None, "c17", "c42", "c101"])
def test_what_goes_with_the_weather_comes_first(server: Server, customer: str | None) -> None:
    for weather, other in (("rain", "sun"), ("sun", "rain")):
        found = asked(server, customer, weather=weather)
        assert fitting(found, weather) >= fitting(found, other) + 3


def test_a_weather_that_no_event_had_is_unknown(server: Server) -> None:
    assert asked(server, "c17", weather="snow") == asked(server, "c17")


def test_an_attribute_that_is_not_declared_is_refused(server: Server) -> None:
    body = {"context": {"channel": "web", "attributes": {"mood": "good"}}}
    answer = server.client.post("/v1/recommend", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] == "context.attributes.mood"
    assert "weather" in answer.json()["detail"]


def test_events_carry_it_and_it_is_kept(server: Server, database: str) -> None:
    event = {
        "event_id": "w-1",
        "type": "purchase",
        "customer_id": "c17",
        "product_id": "p01",
        "at": UNTIL.isoformat(),
    }
    found = server.report(
        event | {"context": {"weather": "rain"}},
        event | {"event_id": "w-2", "context": {"mood": "good"}},
        event | {"event_id": "w-3", "context": {"weather": 1}},
    )
    assert found["accepted"] == 1
    assert [one["error"]["field"] for one in found["rejected"]] == [
        "events[1].context.mood",
        "events[2].context[...]",
    ]
    assert server.recommend("c17")["degraded"] is False

    async def kept() -> str:
        connection = await asyncpg.connect(database)
        try:
            return await connection.fetchval("SELECT context ->> 'weather' FROM events WHERE event_id = 'w-1'")
        finally:
            await connection.close()

    assert asyncio.run(kept()) == "rain"


def test_a_release_without_such_attributes_takes_none(reader: Server) -> None:
    answer = reader.client.post(
        "/v1/recommend", json={"context": {"channel": "web", "attributes": {"weather": "rain"}}}
    )
    assert answer.status_code == 422
    assert "none" in answer.json()["detail"]
    assert ids(reader.recommend("c017"))
