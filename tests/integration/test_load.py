"""Tables brought into the database, and training on what the database holds."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import polars as pl
import pytest

from embeddings.catalogue.changes import OfferState, ProductState, Withdrawal
from embeddings.database.changelog import write
from embeddings.errors import InvalidTables, StillReferred
from embeddings.release.bundle import read_histories_manifest, read_manifest
from embeddings.release.store import BundleStore
from serving.state.event import Event
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from tests.integration.server import Postgres, on_connection
from tests.world import UNTIL, tables, write_tables
from training.config import Recipe
from training.datasets import open_dataset
from training.datasets.database import tables_of
from training.job import run
from training.load import job
from training.load.job import Loaded, load

Found = TypeVar("Found")


def loaded(folder: Path, url: str, recipe: Recipe, *, replace: bool = False) -> Loaded:
    dataset = open_dataset(str(folder), channels=recipe.channels, now=UNTIL, tables=recipe.tables)
    return asyncio.run(load(dataset, url, replace=replace))


def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    async def found(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
        return [tuple(record) for record in await connection.fetch(query)]

    return on_connection(url, found)


def counts(url: str) -> dict[str, int]:
    found = dict(fetch(url, "SELECT kind, count(*) FROM catalogue WHERE NOT withdrawn GROUP BY kind"))
    return {**found, "events": fetch(url, "SELECT count(*) FROM events")[0][0]}


def small(folder: Path, events: str, **more: str) -> Path:
    folder.mkdir()
    (folder / "events.csv").write_text(events)
    for name, text in more.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_all_tables_are_loaded_once_however_often(world: Path, recipe: Recipe, postgres: Postgres):
    url, frames = postgres.database(), tables()
    first = loaded(world, url, recipe)
    held = counts(url)
    groups = frames["promotions"].select("channel", "location", "starts", "ends").unique().height
    assert held == {
        "segment": 1,
        "location": frames["locations"].height,
        "product": frames["products"].height,
        "customer": frames["customers"].height,
        "offer": frames["offers"].height,
        "promotion": groups,
        "events": frames["events"].height,
    }
    assert (first.events, first.fresh, first.changed) == (held["events"], held["events"], first.things)
    again = loaded(world, url, recipe)
    assert (again.changed, again.fresh, again.seq) == (0, 0, first.seq)
    assert counts(url) == held


def test_equal_rows_guests_and_visits_are_kept(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    rows = "c1,purchase,2025-05-01T10:00:00Z,p1,v1,2\n" * 3 + ",purchase,2025-05-01T10:00:00Z,p1,v2,\n"
    folder = small(tmp_path / "shop", "customer_id,type,at,product_id,visit,quantity\n" + rows)
    url = postgres.database()
    assert loaded(folder, url, recipe).fresh == 4
    assert loaded(folder, url, recipe).fresh == 0
    found = fetch(url, "SELECT customer_id, visit, quantity FROM events ORDER BY seq")
    assert found == [("c1", "v1", 2.0)] * 3 + [(None, "v2", 1.0)]
    # One row more of the same is one event more.
    (folder / "events.csv").write_text(
        "customer_id,type,at,product_id,visit,quantity\n" + rows + rows[: len(rows) // 4]
    )
    assert loaded(folder, url, recipe).fresh == 1


def test_a_load_that_was_stopped_goes_on(
    world: Path, recipe: Recipe, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    url, calls = postgres.database(), 0

    async def stops(*arguments: Any, **named: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return await write(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(job, "write", stops)
        with pytest.raises(KeyboardInterrupt):
            loaded(world, url, recipe)
    assert counts(url)["events"] == 0
    loaded(world, url, recipe)
    whole = postgres.database()
    loaded(world, whole, recipe)
    query = (
        "SELECT kind, id, body::text, row_number() OVER (PARTITION BY kind ORDER BY since) FROM catalogue ORDER BY 1, 2"
    )
    assert fetch(url, query) == fetch(whole, query)


def test_faulty_tables_write_nothing(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    folder = small(tmp_path / "shop", "customer_id,type,at,product_id\nc1,bought,2025-05-01T10:00:00Z,p1\n")
    with pytest.raises(InvalidTables):
        loaded(folder, postgres.database(), recipe)


def test_replace_withdraws_what_is_not_listed_any_more(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    events = "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n"
    offers = "offer_id,products,starts,ends\n{}o,p1,2025-05-01T00:00:00Z,2099-05-01T00:00:00Z\n"
    url = postgres.database()
    both = small(tmp_path / "both", events, products="product_id\np1\np2\n", offers=offers.format("p2-"))
    loaded(both, url, recipe)
    on_connection(url, lambda connection: write(connection, [ProductState(id="by-hand")], "me"))
    (both / "products.csv").write_text("product_id\np1\n")
    assert loaded(both, url, recipe).changed == 0
    assert loaded(both, url, recipe, replace=True).changed == 2
    assert fetch(url, "SELECT id FROM products WHERE NOT withdrawn") == [("p1",)]
    assert counts(url)["events"] == 1
    (both / "products.csv").write_text("product_id\np1\np2\n")
    loaded(both, url, recipe)
    assert fetch(url, "SELECT id FROM products WHERE NOT withdrawn ORDER BY id") == [("p1",), ("p2",)]


def test_replace_leaves_what_an_offer_of_others_needs(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    events = "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n"
    url = postgres.database()
    folder = small(tmp_path / "shop", events, products="product_id\np1\np2\n")
    loaded(folder, url, recipe)
    ends = UNTIL.replace(year=2100)
    offer = OfferState(id="by-hand", products=("p2",), starts=UNTIL, ends=ends)
    on_connection(url, lambda connection: write(connection, [offer], "me"))
    (folder / "products.csv").write_text("product_id\np1\n")
    with pytest.raises(StillReferred, match="by-hand"):
        loaded(folder, url, recipe, replace=True)


def hashes(store: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The hashes of the files of the release that is published in a store."""
    bundles = BundleStore(store)
    version = bundles.current()
    bundle, past = read_manifest(bundles.bundle(version)), read_histories_manifest(bundles.histories(version))
    return tuple({name: entry.sha256 for name, entry in one.files.items()} for one in (bundle, past))  # pyright: ignore


@pytest.fixture(scope="module")
def moment_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world without what comes after its cut-off, its columns of attributes in another order."""
    frames = tables()
    frames["events"] = frames["events"].filter(pl.col("at") < UNTIL)
    frames["products"] = frames["products"].select(reversed(frames["products"].columns))
    return write_tables(frames, tmp_path_factory.mktemp("moment") / "world")


def test_a_folder_and_the_database_give_the_same_release(
    moment_world: Path, recipe: Recipe, postgres: Postgres, tmp_path: Path
):
    url = postgres.database()
    loaded(moment_world, url, recipe)
    common: dict[str, Any] = {"until": UNTIL, "device": "cpu", "gated": False}
    run(str(moment_world), tmp_path / "folder", recipe, **common)
    manifest = run("postgres", tmp_path / "database", recipe, **common, database=url)
    assert hashes(tmp_path / "folder") == hashes(tmp_path / "database")
    assert manifest.data == "postgres"
    assert manifest.catalogue_seq == fetch(url, "SELECT max(seq) FROM catalogue_changes")[0][0]
    past = read_histories_manifest(BundleStore(tmp_path / "database").histories(manifest.version))
    assert past.mark


def test_what_the_service_heard_and_what_was_withdrawn_count_in_the_tables(
    world: Path, recipe: Recipe, postgres: Postgres
):
    url = postgres.database()
    loaded(world, url, recipe)

    async def hear() -> None:
        store = EventStore(url, Invalidations(1))
        async with store.connected():
            at = UNTIL + timedelta(hours=1)
            heard = Event(event_id="heard", type="purchase", customer_id="c001", at=at, product_id="p001")
            await store.add([heard], int(at.timestamp()))

    asyncio.run(hear())
    gone = [Withdrawal(kind="product", id="late"), Withdrawal(kind="customer", id="c000")]
    on_connection(url, lambda connection: write(connection, gone, "me"))
    with tables_of("postgres", recipe, url) as source:
        dataset = open_dataset(source.data, channels=recipe.channels, now=UNTIL + timedelta(days=400))
        events, products, customers = (one.collect() for one in (dataset.events, dataset.products, dataset.customers))
    assert events.height == tables()["events"].filter(pl.col("customer_id") != "c000").height + 1
    assert events["product_id"].to_list()[-1] == "p001"
    assert dict(zip(products["product_id"], products["recommendable"], strict=True))["late"] is False
    assert "c000" not in set(customers["customer_id"])
