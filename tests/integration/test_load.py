"""Tables brought into the database, and training on what the database holds."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec
import polars as pl
import pytest

from embeddings.catalogue import changes
from embeddings.catalogue.changes import (
    AnyState,
    CampaignState,
    CustomerState,
    LocationState,
    OfferState,
    ProductState,
    SegmentState,
    Withdrawal,
)
from embeddings.catalogue.columns import ChannelRule
from embeddings.database.changelog import write
from embeddings.database.connection import DATABASE_VARIABLE
from embeddings.database.migrate import prepare
from embeddings.database.postgres import database
from embeddings.errors import InvalidInput, InvalidTables, StillReferred
from embeddings.release.bundle import read_histories_manifest, read_manifest
from embeddings.release.store import BundleStore
from serving.state.event import Event
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from tests.integration.server import ROOT, Postgres, on_connection
from tests.world import UNTIL, tables, write_tables
from training.config import Recipe, TablesConfig
from training.datasets import MOVING, Dataset, open_dataset
from training.datasets.database import tables_of
from training.datasets.frames import PROMOTION_ID
from training.job import run
from training.load import events, job
from training.load.job import Loaded, load

Found = TypeVar("Found")

NOW = UNTIL + timedelta(days=400)
"""After all that the world holds."""


def loaded(folder: Path, url: str, recipe: Recipe, *, replace: bool = False) -> Loaded:
    dataset = open_dataset(str(folder), channels=recipe.channels, now=UNTIL, tables=recipe.tables)
    return asyncio.run(load(dataset, url, replace=replace, now=NOW))


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


def test_an_offer_that_is_larger_than_one_may_be_is_refused_by_its_field(
    world: Path, recipe: Recipe, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes, "LARGEST_STATE", 300)
    with pytest.raises(InvalidInput) as refused:
        loaded(world, postgres.database(), recipe)
    assert refused.value.field == "offer.products"


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


def test_events_of_the_past_lie_by_themselves_and_those_since_in_their_days(
    recipe: Recipe, postgres: Postgres, tmp_path: Path
):
    url = postgres.database()
    loaded(small(tmp_path / "shop", "customer_id,type,at,product_id\nc,view,2025-05-01T10:00:00Z,p\n"), url, recipe)
    now = fetch(url, "SELECT now()")[0][0]
    today = f"customer_id,type,at,product_id\nc,view,{now.isoformat()},p\n"
    dataset = open_dataset(str(small(tmp_path / "today", today)), channels=recipe.channels, now=now)
    asyncio.run(load(dataset, url, replace=False, now=now + timedelta(seconds=1)))
    found = fetch(url, "SELECT tableoid::regclass::text FROM events ORDER BY at")
    assert found == [("events_past",), (f"events_{now:%Y%m%d}",)]


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_events_whose_load_was_stopped_come_in_the_same_order(
    world: Path, recipe: Recipe, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, chunk: int
):
    monkeypatch.setattr(events, "_AT_ONCE", 1_000)
    url, whole, calls = postgres.database(), postgres.database(), 0
    slices = events._slices  # pyright: ignore[reportPrivateUsage]

    def stops(dataset: Dataset) -> Iterator[Any]:
        nonlocal calls
        for calls, some in enumerate(slices(dataset)):
            if calls == chunk:
                raise KeyboardInterrupt
            yield some

    with monkeypatch.context() as patched:
        patched.setattr(events, "_slices", stops)
        with pytest.raises(KeyboardInterrupt):
            loaded(world, url, recipe)
    assert counts(url)["events"] == chunk * 1_000
    loaded(world, url, recipe)
    loaded(world, whole, recipe)
    query = "SELECT event_id, customer_id, type, at, product_id, offer_id, location FROM events ORDER BY seq"
    assert fetch(url, query) == fetch(whole, query)


def test_a_store_that_is_named_is_loaded_into_whatever_the_environment_says(postgres: Postgres, tmp_path: Path):
    url, store = postgres.database(), tmp_path / "store"
    rows = "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n"
    folder = small(tmp_path / "shop", rows)
    command = [sys.executable, "-m", "training.load", "--data", str(folder), "--store", str(store)]
    environment = os.environ | {DATABASE_VARIABLE: url}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    with database(None, store) as beside:
        assert counts(beside.url)["events"] == 1
    asyncio.run(prepare(url))
    assert counts(url)["events"] == 0
    both = subprocess.run([*command, "--database", url], check=False, cwd=ROOT, env=environment)
    assert both.returncode == 2


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


def edited(url: str, *states: AnyState) -> None:
    """Have somebody change things by hand."""
    on_connection(url, lambda connection: write(connection, states, "me"))


def body(url: str, kind: str) -> dict[str, Any]:
    """The state of the one thing of a kind."""
    ((found,),) = fetch(url, f"SELECT body::text FROM catalogue WHERE kind = '{kind}'")
    return msgspec.json.decode(found)


def test_what_the_tables_have_no_column_for_stays_as_it_was_edited(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    url = postgres.database()
    starts, ends = UNTIL, UNTIL.replace(year=2099)
    folder = small(
        tmp_path / "shop",
        "customer_id,type,at,product_id,location\nc1,purchase,2025-05-01T10:00:00Z,p1,l1\n",
        products="product_id,price,colour\np1,2.5,red\n",
        offers=f"offer_id,products,starts,ends,audience,campaign\no1,p1,{starts.isoformat()},{ends.isoformat()},vip,spring\n",
    )
    loaded(folder, url, recipe)
    product = ProductState(
        id="p1", attributes={"colour": "blue", "size": "xl"}, price=9, in_stock=False, withdrawn_at=("l1",)
    )
    offer = OfferState(
        id="o1",
        products=("p1",),
        starts=starts,
        ends=ends,
        name="by hand",
        status="paused",
        uses=3,
        channels=("web",),
        priority=2.0,
        content={"title": "by hand"},
        campaign="spring",
    )
    edited(url, product, offer, LocationState(id="l1", region="r"), SegmentState(id="vip", name="by hand"))
    edited(url, CampaignState(id="spring", name="by hand"), CustomerState(id="c1", attributes={"kind": "by hand"}))
    assert loaded(folder, url, recipe).changed == 2, "the product and the offer, in what the tables hold"
    colour_and_size = {"colour": "red", "size": "xl"}
    assert body(url, "product") == {
        "id": "p1",
        "attributes": colour_and_size,
        "price": 2.5,
        "in_stock": False,
        "withdrawn_at": ["l1"],
    }
    held = msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(offer, audience="vip")))
    assert body(url, "offer") == held
    assert body(url, "location") == {"id": "l1", "region": "r"}
    assert body(url, "segment")["name"] == body(url, "campaign")["name"] == "by hand"
    assert body(url, "customer")["attributes"] == {"kind": "by hand"}
    assert loaded(folder, url, recipe).changed == 0
    # A column without a value says that there is none.
    (folder / "products.csv").write_text("product_id,price,colour,in_stock\np1,,,\n")
    loaded(folder, url, recipe)
    assert body(url, "product") == {"id": "p1", "attributes": {"size": "xl"}, "withdrawn_at": ["l1"]}


@pytest.mark.parametrize(
    ("table", "header"),
    [
        ("products", "product_id"),
        ("customers", "customer_id"),
        ("locations", "location"),
        ("offers", "offer_id,products,starts,ends"),
        ("promotions", "channel,location,product_id,starts,ends"),
    ],
)
def test_a_table_without_a_row_replaces_nothing(
    recipe: Recipe, postgres: Postgres, tmp_path: Path, table: str, header: str
):
    url = postgres.database()
    asyncio.run(prepare(url))
    edited(url, ProductState(id="p1"), ProductState(id="p2"))
    events = "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n"
    folder = small(tmp_path / "shop", events, **{table: f"{header}\n"})
    command = [sys.executable, "-m", "training.load", "--data", str(folder), "--database", url, "--replace"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2, refused.stderr
    assert f"the table {table}" in refused.stderr
    assert counts(url) == {"product": 2, "events": 0}
    assert loaded(folder, url, recipe).fresh == 1
    assert counts(url)["product"] == 2


def test_master_data_are_loaded_without_events(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    url = postgres.database()
    both = small(
        tmp_path / "both",
        "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n",
        products="product_id,price\np1,1\np2,2\n",
        customers="customer_id\nc1\n",
    )
    loaded(both, url, recipe)
    feed = tmp_path / "feed"
    feed.mkdir()
    (feed / "products.csv").write_text("product_id,price\np1,3\np3,4\n")
    (feed / "event.csv").write_text("customer_id,type,at,product_id\n")
    command = [sys.executable, "-m", "training.load", "--data", str(feed), "--database", url, "--replace"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "event.csv" in done.stderr, "it may have been meant for one"
    prices = "SELECT id, body ->> 'price' FROM catalogue WHERE kind = 'product' AND NOT withdrawn ORDER BY id"
    assert [(one, float(price)) for one, price in fetch(url, prices)] == [("p1", 3), ("p3", 4)]
    assert counts(url) == {"product": 2, "customer": 1, "events": 1}
    with pytest.raises(InvalidTables, match="events: the table is missing"):
        open_dataset(str(feed), channels=recipe.channels, now=UNTIL)
    (feed / "products.csv").unlink()
    with pytest.raises(InvalidTables, match="table is missing"):
        open_dataset(str(feed), channels=recipe.channels, now=UNTIL, whole=False)


def test_who_was_forgotten_is_a_customer_again_only_if_the_table_says_so(
    recipe: Recipe, postgres: Postgres, tmp_path: Path
):
    url = postgres.database()
    folder = small(tmp_path / "shop", "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n")
    loaded(folder, url, recipe)
    edited(url, CustomerState(id="c1", attributes={"kind": "by hand"}))
    on_connection(url, lambda connection: write(connection, [Withdrawal(kind="customer", id="c1")], "me"))
    assert loaded(folder, url, recipe).changed == 0
    assert "customer" not in counts(url)
    (folder / "customers.csv").write_text("customer_id\nc1\n")
    loaded(folder, url, recipe)
    assert counts(url)["customer"] == 1
    assert body(url, "customer") == {"id": "c1"}


def test_what_was_withdrawn_comes_back_only_if_a_table_other_than_events_names_it(
    recipe: Recipe, postgres: Postgres, tmp_path: Path
):
    url = postgres.database()
    events = "customer_id,type,at,product_id,location\nc1,purchase,2025-05-01T10:00:00Z,p1,l1\n"
    folder = small(tmp_path / "shop", events)
    loaded(folder, url, recipe)
    gone = [Withdrawal(kind="product", id="p1"), Withdrawal(kind="location", id="l1")]
    on_connection(url, lambda connection: write(connection, gone, "me"))
    assert loaded(folder, url, recipe).changed == 0
    assert "product" not in counts(url)
    assert "location" not in counts(url)
    spring = f"{UNTIL.isoformat()},{UNTIL.replace(year=2099).isoformat()}"
    (folder / "offers.csv").write_text(f"offer_id,products,starts,ends,audience\no1,p1,{spring},vip\n")
    loaded(folder, url, recipe)
    assert counts(url) == {"product": 1, "customer": 1, "offer": 1, "segment": 1, "events": 1}
    on_connection(url, lambda connection: write(connection, [Withdrawal(kind="offer", id="o1")], "me"))
    on_connection(url, lambda connection: write(connection, [Withdrawal(kind="segment", id="vip")], "me"))
    (folder / "products.csv").write_text("product_id,locations\np1,l1\n")
    loaded(folder, url, recipe)
    assert counts(url) == {"product": 1, "location": 1, "customer": 1, "offer": 1, "segment": 1, "events": 1}


def test_a_product_whose_location_was_withdrawn_is_loaded_all_the_same(
    recipe: Recipe, postgres: Postgres, tmp_path: Path
):
    url = postgres.database()
    events = "customer_id,type,at,product_id,location\nc1,purchase,2025-05-01T10:00:00Z,p1,l1\n"
    folder = small(tmp_path / "shop", events, products="product_id,locations\np1,l1\n")
    loaded(folder, url, recipe)
    gone = Withdrawal(kind="location", id="l1")
    on_connection(url, lambda connection: write(connection, [gone], "me"))
    (folder / "products.csv").write_text("product_id,price\np1,2.5\n")
    assert loaded(folder, url, recipe).changed == 1
    assert body(url, "product") == {"id": "p1", "price": 2.5, "locations": ["l1"]}


def test_events_outside_of_time_are_left_out_and_counted(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    rows = [
        f"c,view,{at},p\n" for at in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z")
    ]
    ahead = [f"c,view,{(NOW + timedelta(seconds=more)).isoformat()},q\n" for more in (-1, 0, 1)]
    folder = small(tmp_path / "shop", "customer_id,type,at,product_id\n" + "".join(rows + ahead))
    url = postgres.database()
    done = loaded(folder, url, recipe)
    assert (done.events, done.fresh, done.left_out) == (1, 1, 5)
    assert fetch(url, "SELECT id FROM products") == [("q",)], "what only other events name is not there either"


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("events", "customer_id,type,at,product_id,weather\nc,view,2025-05-01T10:00:00Z,p,ra\0in\n"),
        ("events", "customer_id,type,at,product_id,weather\nc,view,2025-05-01T10:00:00Z,p\0,rain\n"),
        ("customers", "customer_id,kind\nc,a\0b\n"),
        ("products", "product_id,kind\np,a\0b\n"),
        ("products", "product_id," + "k" * 257 + "\np,a\n"),
        ("locations", "location,region\nl,a\0b\n"),
    ],
)
def test_what_postgresql_cannot_keep_is_refused_by_the_checks(recipe: Recipe, tmp_path: Path, table: str, text: str):
    events = "customer_id,type,at,product_id,weather\nc,view,2025-05-01T10:00:00Z,p,rain\n"
    folder = small(tmp_path / "shop", events)
    (folder / f"{table}.csv").write_text(text)
    declared = msgspec.structs.replace(recipe, tables=TablesConfig(context_attributes=("weather",)))
    with pytest.raises(InvalidTables, match=f"{table}.csv"):
        open_dataset(str(folder), channels=recipe.channels, now=UNTIL, tables=declared.tables)


def test_every_span_of_promotions_has_an_id_of_its_own(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    at = "2025-05-01T10:00:00"
    spans = [
        ("a|b", "c", f"{at}Z", f"{at}Z"),
        ("a", "b|c", f"{at}Z", f"{at}Z"),
        ("a%7Cb", "c", f"{at}Z", f"{at}Z"),
        ("a", "c", f"{at}.000001Z", f"{at}.5Z"),
        ("a", "c", f"{at}.000002Z", f"{at}.5Z"),
        ("a", "c", f"{at}Z", f"{at}.5Z"),
        ("a", "l" * 256, f"{at}Z", f"{at}.5Z"),
        ("a", "l" * 255 + "m", f"{at}Z", f"{at}.5Z"),
    ]
    folder = small(
        tmp_path / "shop",
        "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n",
        promotions="channel,location,product_id,starts,ends\n"
        + "".join(f"{channel},{place},p1,{starts},{ends}\n" for channel, place, starts, ends in spans),
    )
    own = msgspec.structs.replace(recipe, channels=dict.fromkeys(("a|b", "a", "a%7Cb"), ChannelRule.PROMOTED))
    url = postgres.database()
    loaded(folder, url, own)
    assert counts(url)["promotion"] == len(spans)
    assert loaded(folder, url, own).changed == 0
    with tables_of("postgres", own, url) as source:
        dataset = open_dataset(source.data, channels=own.channels, now=NOW, stored=True)
        rows = dataset.promotions.collect()
        assert sorted(rows[PROMOTION_ID]) == sorted(one for (one,) in fetch(url, "SELECT id FROM promotions"))


def test_data_that_move_with_the_calendar_are_loaded_once(recipe: Recipe, postgres: Postgres, tmp_path: Path):
    url = postgres.database()
    offers = "offer_id,products,starts,ends\no,p1,{}T00:00:00Z,2099-05-01T00:00:00Z\n"
    folder = small(tmp_path / "shop", "customer_id,type,at,product_id\nc1,purchase,2025-05-01T10:00:00Z,p1\n")

    def moved(day: str) -> Loaded:
        (folder / "offers.csv").write_text(offers.format(day))
        dataset = open_dataset(str(folder), channels=recipe.channels, now=UNTIL, tables=recipe.tables)
        return asyncio.run(load(dataset._replace(name=MOVING[0]), url, replace=False, now=NOW))

    assert moved("2025-05-01").fresh == 1
    assert moved("2025-05-01").fresh == 0
    with pytest.raises(InvalidInput, match="7 days"):
        moved("2025-05-08")


def test_without_a_url_the_database_is_the_one_beside_the_store(recipe: Recipe, world: Path, anybodys: Path):
    store = anybodys / "beside"
    with pytest.raises(InvalidInput, match="beside"), tables_of("postgres", recipe, None, store):
        pass
    assert not store.exists(), "to look does not make one"
    with database(None, store) as found:
        loaded(world, found.url, recipe)
    with tables_of("postgres", recipe, None, store) as source:
        dataset = open_dataset(source.data, channels=recipe.channels, now=NOW, stored=True)
        assert dataset.events.collect().height == tables()["events"].height


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
    assert manifest.catalogue_log == fetch(url, "SELECT log::text FROM catalogue_log")[0][0]
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
        now = UNTIL + timedelta(days=400)
        dataset = open_dataset(source.data, channels=recipe.channels, now=now, stored=True)
        events, products, customers = (one.collect() for one in (dataset.events, dataset.products, dataset.customers))
    assert events.height == tables()["events"].filter(pl.col("customer_id") != "c000").height + 1
    assert events["product_id"].to_list()[-1] == "p001"
    assert dict(zip(products["product_id"], products["recommendable"], strict=True))["late"] is False
    assert "c000" not in set(customers["customer_id"])
