"""Whoever follows the change log, in pages of any size, knows what the tables hold."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest
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
from embeddings.database import changelog
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
    st.builds(
        OfferState,
        id=IDS,
        products=SOME,
        starts=st.just(UNTIL),
        ends=st.just(ENDS),
        name=st.sampled_from(["", 300 * "n"]),
    ),
    st.builds(PlacementState, id=IDS, slots=st.sampled_from([1, 5]), fallback=SOME),
    st.builds(Withdrawal, kind=st.sampled_from(["product", "location", "offer", "placement"]), id=IDS),
)
BATCHES = st.lists(st.lists(CHANGES, min_size=1, max_size=4), min_size=1, max_size=8)


def once(states: Sequence[Change]) -> dict[tuple[str, str], Change]:
    return {(kind_of(one), one.id): one for one in states}


def size(states: Sequence[Change]) -> int:
    """The length of states as JSON without a space."""
    return sum(len(msgspec.json.encode(one)) for one in states if not isinstance(one, Withdrawal))


async def followed(connection: Connection, most: int, most_bytes: int) -> dict[tuple[str, str], Change]:
    """What a follower knows that reads so many changes at a time."""
    known: dict[tuple[str, str], Change] = {}
    seq = 0
    while seq < await last(connection):
        page = await changed(connection, seq, most, UNTIL)
        assert seq < page.seq <= seq + most
        assert len(once(page.states)) == len(page.states)
        assert page.seq == seq + 1 or size(page.states) <= most_bytes
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


def test_a_log_read_in_pages_of_any_size_gives_what_the_tables_hold(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    url = postgres.database()
    asyncio.run(prepare(url))

    async def check(
        connection: asyncpg.Connection, batches: Sequence[Sequence[Change]], most: int, most_bytes: int
    ) -> None:
        await connection.execute("TRUNCATE catalogue, catalogue_changes")
        for batch in batches:
            before = await held(connection), await last(connection)
            try:
                await write(connection, batch, "test")
            except (InvalidChanges, StillReferred):
                assert (await held(connection), await last(connection)) == before
        assert await followed(connection, most, most_bytes) == await held(connection)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(BATCHES, st.integers(1, 9), st.sampled_from([1, 500, 1_000, 2**24]))
    def run(batches: Sequence[Sequence[Change]], most: int, most_bytes: int) -> None:
        monkeypatch.setattr(changelog, "_AT_ONCE_BYTES", most_bytes)
        on_connection(url, lambda connection: check(connection, batches, most, most_bytes))

    run()


def test_of_large_states_a_page_holds_few_and_of_one_thing_the_last(postgres: Postgres):
    url = postgres.database()
    asyncio.run(prepare(url))
    random = Random(0)

    def offer(one: str, **fields: Any) -> OfferState:
        return OfferState(id=one, products=(), starts=UNTIL, ends=ENDS, **fields)

    async def check(connection: asyncpg.Connection) -> None:
        # What follows has no use for content, and not for a state that was overtaken: neither is read.
        for number in range(40):
            await write(
                connection, [offer("a", name=str(number), content={"a": random.randbytes(2**19).hex()})], "test"
            )
        page = await changed(connection, 0, 2_000, UNTIL)
        assert (page.seq, page.states) == (40, [offer("a", name="39")])

        # Such a name is stored in a hundredth of its length.
        names = {one: 2**22 * one for one in "bcdefgh"}
        await write(connection, [offer(one, name=name) for one, name in names.items()], "test")
        seq, pages = 40, list[list[Change]]()
        while seq < await last(connection):
            page = await changed(connection, seq, 2_000, UNTIL)
            pages.append(page.states)
            seq = page.seq
        assert [one for states in pages for one in states] == [offer(one, name=name) for one, name in names.items()]
        assert all(size(states) <= 2**24 for states in pages)

    on_connection(url, check)
