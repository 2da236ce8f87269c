"""Whoever follows the change log, in pages of any size, knows what the tables hold."""

import asyncio
from collections.abc import Sequence

import asyncpg
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embeddings.catalogue.changes import (
    STATES,
    Change,
    LocationState,
    OfferState,
    PlacementState,
    ProductState,
    Withdrawal,
    kind_of,
    withdrawn,
)
from embeddings.database.changelog import Connection, changed, last, write
from embeddings.database.migrate import prepare
from embeddings.errors import InvalidChanges, StillReferred
from tests.integration.server import Postgres, on_connection
from tests.world import UNTIL

IDS = st.sampled_from(["a", "b", "c"])
SOME = st.lists(IDS, max_size=2, unique=True).map(tuple)
ENDS = UNTIL.replace(year=2100)
CHANGES = st.one_of(
    st.builds(ProductState, id=IDS, price=st.sampled_from([None, 1.0, 2.5]), withdrawn_at=SOME),
    st.builds(LocationState, id=IDS, region=st.sampled_from([None, "cold"])),
    st.builds(OfferState, id=IDS, products=SOME, starts=st.just(UNTIL), ends=st.just(ENDS)),
    st.builds(PlacementState, id=IDS, slots=st.sampled_from([1, 5]), fallback=SOME),
    st.builds(Withdrawal, kind=st.sampled_from(["product", "location", "offer", "placement"]), id=IDS),
)
BATCHES = st.lists(st.lists(CHANGES, min_size=1, max_size=4), min_size=1, max_size=8)


def once(states: Sequence[Change]) -> dict[tuple[str, str], Change]:
    return {(kind_of(one), one.id): one for one in states}


async def followed(connection: Connection, most: int) -> dict[tuple[str, str], Change]:
    """What a follower knows that reads so many changes at a time."""
    known: dict[tuple[str, str], Change] = {}
    seq = 0
    while seq < await last(connection):
        page = await changed(connection, seq, most, UNTIL)
        assert seq < page.seq <= seq + most
        known |= once(page.states)
        seq = page.seq
    return known


async def held(connection: Connection) -> dict[tuple[str, str], Change]:
    """What the tables hold, row by row."""
    rows = await connection.fetch("SELECT kind, withdrawn, body::text FROM catalogue")
    states = [(gone, msgspec.json.decode(body, type=STATES[kind])) for kind, gone, body in rows]
    gone_slot = {
        one.id: Withdrawal(kind="placement", id=one.id) for gone, one in states if gone and kind_of(one) == "placement"
    }
    return once([withdrawn(state) if gone else state for gone, state in states]) | {
        ("placement", one): gone for one, gone in gone_slot.items()
    }


def test_a_log_read_in_pages_of_any_size_gives_what_the_tables_hold(postgres: Postgres):
    url = postgres.database()
    asyncio.run(prepare(url))

    async def check(connection: asyncpg.Connection, batches: Sequence[Sequence[Change]], most: int) -> None:
        await connection.execute("TRUNCATE catalogue, catalogue_changes")
        for batch in batches:
            before = await held(connection), await last(connection)
            try:
                await write(connection, batch, "test")
            except (InvalidChanges, StillReferred):
                assert (await held(connection), await last(connection)) == before
        assert await followed(connection, most) == await held(connection)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(BATCHES, st.integers(1, 9))
    def run(batches: Sequence[Sequence[Change]], most: int) -> None:
        on_connection(url, lambda connection: check(connection, batches, most))

    run()
