"""What a follower brings into the view of a release, from a database of its own."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from embeddings.catalogue.changes import (
    Change,
    LocationState,
    OfferState,
    ProductState,
    PromotionState,
    Withdrawal,
)
from embeddings.database.changelog import newest, write
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
from training.catalogue import promotion_id

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


def known(view: View, *products: str) -> list[str]:
    return [one for one in products if view.catalogue.products.ids.row(one) is not None]


@pytest.mark.parametrize("seq", [1, 1_000])
def test_changes_of_another_database_than_the_releases_all_count(first: View, postgres: Postgres, seq: int):
    """Whether the other database has counted more changes or fewer."""
    other, url = on_connection(made(postgres), newest), made(postgres)
    marked = replace(first, log=other.log, seq=seq)
    write_each(url, ProductState(id="one"), ProductState(id="two"))
    view, _ = followed(marked, url)
    assert (known(view, "one", "two"), view.seq) == (["one", "two"], 2)
    write_each(url, ProductState(id="three"))
    later, _ = followed(view, url)
    assert (known(later, "three"), later.seq, later.number) == (["three"], 3, view.number + 1)


def test_another_database_without_changes_is_followed_from_its_first(first: View, postgres: Postgres):
    url = made(postgres)
    view, _ = followed(replace(first, log=on_connection(made(postgres), newest).log, seq=5), url)
    assert view.seq == 0
    assert followed(view, url)[0] is view
    write_each(url, ProductState(id="one"))
    assert known(followed(view, url)[0], "one") == ["one"]


def test_changes_that_were_lost_with_a_later_state_of_the_database_hide_no_new_ones(first: View, postgres: Postgres):
    url = made(postgres)
    write_each(url, ProductState(id="one"))
    view, _ = followed(replace(first, log=on_connection(url, newest).log, seq=1_000), url)
    assert (known(view, "one"), view.seq) == (["one"], 1)


def test_of_the_releases_own_database_only_later_changes_are_brought_in(first: View, postgres: Postgres):
    url = made(postgres)
    write_each(url, ProductState(id="one"), ProductState(id="two"))
    view, _ = followed(replace(first, log=on_connection(url, newest).log, seq=1), url)
    assert (known(view, "one", "two"), view.seq) == (["two"], 2)


def test_of_another_log_nothing_that_is_past_is_shown_on_the_way(
    first: View, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serving.catalogue.follower._AT_ONCE", 1)
    url, slot = made(postgres), ViewSlot(replace(first, log="another", seq=1))
    write_each(url, *(ProductState(id="one", price=price) for price in (1.0, 2.0, 3.0)))
    asyncio.run(CatalogueFollower(slot, url).catch_up())
    assert (slot.current.seq, slot.current.number) == (3, first.number + 1)


# Promotions


OVER, SOON, LATER = (UNTIL + timedelta(days=days) for days in (-1, 1, 2))
PROMOTION = PromotionState(
    id="spring", channel="mailer", location="north", products=("p001",), starts=UNTIL - timedelta(days=3), ends=LATER
)
NAMED = [ProductState(id="p001"), ProductState(id="p002"), LocationState(id="north")]


def plan(view: View) -> dict[str, tuple[datetime, list[str]]]:
    """The promotions that promote anything: until when, and what."""
    groups = view.catalogue.promotions
    return {
        one: (datetime.fromtimestamp(int(groups.ends_G[row]), UTC), view.catalogue.products.ids.ids(products.tolist()))
        for row, one in enumerate(groups.ids.ids())
        if len(products := groups.products[row])
    }


def changed(**fields: Any) -> PromotionState:
    return msgspec.structs.replace(PROMOTION, **fields)


GONE = Withdrawal(kind="promotion", id="spring")
CASES: dict[str, tuple[list[Change], dict[str, tuple[datetime, list[str]]]]] = {
    "new": ([PROMOTION], {"spring": (LATER, ["p001"])}),
    "another end": ([PROMOTION, changed(ends=SOON)], {"spring": (SOON, ["p001"])}),
    "withdrawn": ([PROMOTION, changed(ends=SOON), GONE], {}),
    "withdrawn and back": ([PROMOTION, GONE, changed(ends=SOON)], {"spring": (SOON, ["p001"])}),
    "over before the cut-off": ([PROMOTION, changed(ends=OVER)], {}),
    "over and back": ([PROMOTION, changed(ends=OVER), changed(products=("p002",))], {"spring": (LATER, ["p002"])}),
    "to an unknown channel": ([PROMOTION, changed(channel="kiosk")], {}),
    "two of one time and place": (
        [PROMOTION, changed(id="twin", products=("p002",))],
        {"spring": (LATER, ["p001"]), "twin": (LATER, ["p002"])},
    ),
    "one of two withdrawn": ([PROMOTION, changed(id="twin"), GONE], {"twin": (LATER, ["p001"])}),
}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_promotion_is_what_its_id_says_last(first: View, postgres: Postgres, case: str, *, at_once: bool):
    url, view, held = made(postgres), first, plan(first)
    changes, expected = CASES[case]
    write_each(url, *NAMED)
    for one in changes:
        write_each(url, one)
        if not at_once:
            view, _ = followed(view, url)
    view, refused = followed(view, url)
    assert plan(view) == held | expected
    assert refused == 0


@pytest.mark.parametrize("ends", [SOON, OVER])
def test_a_promotion_that_the_release_holds_ends_when_the_database_says(
    first: View, postgres: Postgres, ends: datetime
):
    url, held = made(postgres), plan(first)
    one = promotion_id("mailer", "north", UNTIL, UNTIL + timedelta(weeks=1))
    write_each(url, *NAMED, changed(id=one, ends=ends))
    view, _ = followed(first, url)
    del held[one]
    assert plan(view) == (held if ends == OVER else held | {one: (ends, ["p001"])})
