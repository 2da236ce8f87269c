"""What a follower brings into the view of a release, from a database of its own."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from embeddings.catalogue.changes import Change, OfferState, ProductState
from embeddings.database.changelog import write
from embeddings.database.migrate import prepare
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving.catalogue.follower import CatalogueFollower
from serving.opening import open_view
from serving.settings import Settings
from serving.slot import ViewSlot
from serving.state.events import EventStore
from serving.view import View
from tests.integration.server import Postgres, execute, on_connection
from tests.world import UNTIL

ALWAYS: dict[str, Any] = {"starts": UNTIL - timedelta(days=30), "ends": UNTIL + timedelta(days=30_000)}


@pytest.fixture
def first(published: tuple[BundleStore, Manifest]) -> View:
    store, manifest = published
    root: Path = store.bundle(manifest.version).parents[1]
    return open_view(Settings(store=root), manifest.version, cast("EventStore", None))


def made(postgres: Postgres) -> str:
    url = postgres.database()
    asyncio.run(prepare(url))
    return url


def write_each(url: str, *changes: Change) -> None:
    """Write changes one after the other."""
    for one in changes:
        on_connection(url, lambda connection, one=one: write(connection, [one], "test"))


def followed(view: View, url: str) -> tuple[View, int]:
    """The view that answers once it has every change of a database, and how many of these it could not show."""
    slot = ViewSlot(view)
    follower = CatalogueFollower(slot, url)
    asyncio.run(follower.catch_up())
    return slot.current, follower.refused


def covered(view: View, offer: str) -> list[str]:
    """The products that an offer covers."""
    row = view.catalogue.offers.ids.row(offer)
    assert row is not None, "it is not in the view"
    return view.catalogue.products.ids.ids(view.catalogue.offers.products[row].tolist())


def test_a_state_that_is_refused_takes_no_other_with_it(first: View, postgres: Postgres):
    url = made(postgres)
    offer = OfferState(id="lasting", products=(), **ALWAYS)
    write_each(
        url,
        ProductState(id="ghost"),
        offer,
        ProductState(id="new"),
        OfferState(id="haunted", products=("ghost",), **ALWAYS),
        OfferState(id="lasting", products=("new",), **ALWAYS),
    )
    execute(url, "DELETE FROM catalogue_changes WHERE id = 'ghost'")
    view, refused = followed(first, url)
    assert covered(view, "lasting") == ["new"]
    assert refused == 1
    assert view.catalogue.offers.ids.row("haunted") is None
