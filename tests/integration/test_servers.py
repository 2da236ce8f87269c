"""Several servers on one PostgreSQL: what one has acknowledged counts in the others' answers soon after."""

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.integration.server import Postgres, Server, copy_store, event, eventually
from tests.integration.test_events import SOON, times_bought
from tests.integration.test_workers import redemption


@pytest.fixture
def brittle_postgres(anybodys: Path) -> Iterator[Postgres]:
    postgres = Postgres(Path(tempfile.mkdtemp(dir=anybodys)))
    yield postgres
    postgres.close()


@pytest.fixture
def servers(
    published: tuple[BundleStore, Manifest], anybodys: Path, brittle_postgres: Postgres
) -> Iterator[list[Server]]:
    """Two servers, of one and of two workers, each with a store of its own."""
    url = brittle_postgres.database()
    started = [
        Server(copy_store(published[0], Path(tempfile.mkdtemp(dir=anybodys))), "--database", url, "--workers", number)
        for number in ("1", "2")
    ]
    yield started
    for one in started:
        one.stop()


def redeemed(server: Server) -> float:
    """How often everybody has redeemed the offer, as the ranker reads it."""
    items = server.recommend("c010", at=SOON, kinds=["offer"], explain=True)["items"]
    return next(one["explanation"]["features"]["redeemed_by_others"] for one in items if one["id"] == "everyone")


def test_an_event_and_a_redemption_count_on_every_server(servers: list[Server]):
    for number, (teller, other) in enumerate([servers, servers[::-1]]):
        customer = f"roamer-{number}"
        before = redeemed(other)
        assert [times_bought(one, customer, "p050") for one in servers] == ["", ""], "in memory from now on"
        teller.report(event(customer, "p050", SOON))
        assert times_bought(teller, customer, "p050") == "Bought once before."
        eventually(lambda: times_bought(other, customer, "p050") == "Bought once before.", "the event")  # noqa: B023
        teller.report(redemption(f"c{number:03d}"))
        eventually(lambda: redeemed(other) == before + 1, "the redemption")  # noqa: B023


def test_a_large_group_counts_for_all_of_its_customers(servers: list[Server]):
    first, second = servers
    customers = [f"of-many-{number}" for number in range(1_000)]
    for customer in customers[::250]:
        assert times_bought(second, customer, "p050") == ""
    first.report(*(event(customer, "p050", SOON) for customer in customers))
    for customer in customers[::250]:
        eventually(lambda: times_bought(second, customer, "p050") == "Bought once before.", "the event")  # noqa: B023


def test_servers_hear_of_each_other_again_after_postgres_was_away(servers: list[Server], brittle_postgres: Postgres):
    first, second = servers
    bought = [event("survivor", "p050", SOON - timedelta(seconds=number)) for number in range(4)]

    def knows(server: Server, times: int) -> bool:
        return times_bought(server, "survivor", "p050") == f"Bought {times} times before."

    first.report(bought[0])
    second.report(bought[1])
    for one in servers:
        eventually(partial(knows, one, 2), "both events")
    brittle_postgres.stop()
    eventually(lambda: first.client.get("/readyz").json()["event_store"] != "answers", "the outage to be seen")
    assert knows(first, 2), "from memory"
    brittle_postgres.start()
    late = {"events": [bought[2]]}
    eventually(lambda: first.client.post("/v1/events", json=late).status_code == 202, "PostgreSQL again")
    eventually(partial(knows, second, 3), "the event")
    second.report(bought[3])
    eventually(partial(knows, first, 4), "the other's event")
