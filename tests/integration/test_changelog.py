"""The change log in PostgreSQL: what is written, what is refused as a whole, and the order in which it is read."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

from embeddings.catalogue.changes import (
    CampaignState,
    Change,
    CustomerState,
    LocationState,
    OfferState,
    PlacementState,
    ProductState,
    SegmentState,
    Withdrawal,
)
from embeddings.catalogue.placement import Pin
from embeddings.database.changelog import Connection, change_of, changed, check_expected, last, read, write
from embeddings.database.migrate import prepare
from embeddings.errors import InvalidChanges, InvalidInput, Stale, StillReferred
from tests.integration.server import Postgres, on_connection

Found = TypeVar("Found")
TODAY = datetime.now(UTC)
MILK, BREAD = ProductState(id="milk", price=1.5), ProductState(id="bread", attributes={"type": "loaf"})


def offer(
    one: str = "o", products: Sequence[str] = ("milk",), days: int = 9, audience: str | None = None
) -> OfferState:
    ends = TODAY + timedelta(days=days)
    return OfferState(id=one, products=tuple(products), starts=TODAY - timedelta(days=20), ends=ends, audience=audience)


def run(postgres: Postgres, test: Callable[[asyncpg.Connection], Awaitable[Found]]) -> Found:
    url = postgres.database()
    asyncio.run(prepare(url))
    return on_connection(url, test)


async def present(connection: Connection) -> list[Change]:
    """What a follower has of products and offers once it has read everything."""
    return (await changed(connection, 0, 1_000, TODAY)).states


def test_a_batch_is_written_in_its_order_and_what_is_the_same_changes_nothing(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> None:
        assert await write(connection, [], "me") == 0
        assert await write(connection, [MILK, BREAD], "me") == 2
        assert await write(connection, [BREAD, ProductState(id="milk", price=1.6)], "you") == 3
        assert await write(connection, [ProductState(id="milk", price=1.60)], "you") == 3
        entries = await read(connection, 0, 10)
        assert [(one.seq, one.actor, one.id) for one in entries] == [
            (1, "me", "milk"),
            (2, "me", "bread"),
            (3, "you", "milk"),
        ]
        assert [change_of(one.kind, one.id, one.body) for one in entries] == [
            MILK,
            BREAD,
            ProductState(id="milk", price=1.6),
        ]
        assert await present(connection) == [BREAD, ProductState(id="milk", price=1.6)]
        assert await read(connection, 2, 10) == entries[2:]

    run(postgres, test)


def test_what_is_withdrawn_can_be_brought_back(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> None:
        await write(connection, [MILK, BREAD], "me")
        gone = Withdrawal(kind="product", id="milk")
        assert await write(connection, [gone], "me") == 3
        assert await write(connection, [gone, Withdrawal(kind="product", id="nothing")], "me") == 3
        assert await present(connection) == [BREAD, replace(MILK, recommendable=False)]
        assert await write(connection, [MILK], "me") == 4
        assert await present(connection) == [BREAD, MILK]

    run(postgres, test)


def test_a_batch_with_faults_writes_nothing_and_names_every_one(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> None:
        await write(connection, [MILK], "me")
        wrong: list[Change] = [
            BREAD,
            replace(offer("a", ["milk", "beer", "bread"]), audience="vip"),
            CustomerState(id="c", audiences=("vip", "club")),
            SegmentState(id="club"),
            ProductState(id="cheese", locations=("north",), withdrawn_at=("south",)),
            OfferState(id="b", products=("milk",), starts=TODAY, ends=TODAY, channels=("web", "tv"), campaign="spring"),
        ]
        with pytest.raises(InvalidChanges) as refused:
            await write(connection, wrong, "me", channels=["web"])
        assert [(place, fault.field) for place, fault in refused.value.faults] == [
            (1, "audience"),
            (1, "products[1]"),
            (2, "audiences[0]"),
            (4, "locations[0]"),
            (4, "withdrawn_at[0]"),
            (5, "campaign"),
            (5, "channels[1]"),
        ]
        with pytest.raises(InvalidChanges, match=r"\[2\].id"):
            await write(connection, [MILK, BREAD, MILK], "me")
        assert await present(connection) == [MILK]

    run(postgres, test)


def test_a_reference_to_what_the_same_batch_withdraws_is_refused(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> None:
        await write(connection, [MILK], "me")
        with pytest.raises(InvalidChanges):
            await write(connection, [Withdrawal(kind="product", id="milk"), offer()], "me")

    run(postgres, test)


def test_a_write_checks_only_names_that_the_last_state_did_not_hold(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> None:
        milk = replace(MILK, locations=("north",))
        both = replace(offer(), channels=("web", "tv"))
        await write(connection, [LocationState(id="north"), milk, both], "me")
        await write(connection, [Withdrawal(kind="location", id="north")], "me")
        await write(connection, [replace(milk, in_stock=False)], "me")
        await write(connection, [replace(both, status="paused")], "me", channels=["web"])
        await write(connection, [Withdrawal(kind="product", id="milk"), Withdrawal(kind="offer", id="o")], "me")
        await write(connection, [milk], "me")
        for wrong in (replace(milk, locations=("north", "south")), replace(BREAD, locations=("north",))):
            with pytest.raises(InvalidChanges):
                await write(connection, [wrong], "me")
        with pytest.raises(InvalidChanges, match=r"channels\[1\]"):
            await write(connection, [replace(both, channels=("tv", "kiosk"))], "me", channels=["web"])

    run(postgres, test)


@pytest.mark.parametrize("kind", ["product", "location", "segment", "campaign"])
def test_what_live_offers_refer_to_is_not_withdrawn(postgres: Postgres, kind: str):
    async def test(connection: asyncpg.Connection) -> None:
        await write(connection, [SegmentState(id="vip"), CampaignState(id="vip"), LocationState(id="vip")], "me")
        await write(connection, [ProductState(id="vip"), MILK], "me")
        named = {
            "product": {"products": ("vip",)},
            "location": {"locations": ("vip",)},
            "segment": {"audience": "vip"},
            "campaign": {"campaign": "vip"},
        }[kind]
        fields = {"id": "a", "products": ("milk",), "starts": TODAY, "ends": TODAY + timedelta(days=1)}
        await write(connection, [OfferState(**(fields | named))], "me")  # pyright: ignore[reportArgumentType]
        gone = Withdrawal(kind=kind, id="vip")  # pyright: ignore[reportArgumentType]
        before = await last(connection)
        with pytest.raises(StillReferred, match="offer 'a'"):
            await write(connection, [gone], "me")
        assert await last(connection) == before
        await write(connection, [gone, Withdrawal(kind="offer", id="a")], "me")
        assert await last(connection) == before + 2

    run(postgres, test)


def test_what_placements_name_is_there_and_is_not_withdrawn(postgres: Postgres):
    pins = (Pin(kind="product", id="milk", position=2), Pin(kind="offer", id="milk", position=1))
    slot = PlacementState(
        id="home",
        kinds=("product", "offer"),
        pinned=pins,
        excluded=("o", "soap"),
        fallback=("o", "p"),
        channels=("tv",),
    )

    async def test(connection: asyncpg.Connection) -> None:
        await write(connection, [MILK, offer()], "me")
        with pytest.raises(InvalidChanges) as refused:
            await write(connection, [slot], "me", channels=["web"])
        fields = ["pinned[1].id", "excluded[1]", "fallback[1]", "channels[0]"]
        assert [fault.field for _, fault in refused.value.faults] == fields
        right = replace(slot, pinned=pins[:1], excluded=("milk",), fallback=("o",), channels=("web",))
        await write(connection, [right], "me", channels=["web"])
        for gone in (Withdrawal(kind="product", id="milk"), Withdrawal(kind="offer", id="o")):
            with pytest.raises(StillReferred, match="placement 'home'"):
                await write(connection, [Withdrawal(kind="offer", id="nothing"), gone], "me")
        assert right in await present(connection)
        gone = Withdrawal(kind="placement", id="home")
        await write(connection, [gone, Withdrawal(kind="product", id="milk"), Withdrawal(kind="offer", id="o")], "me")
        assert gone in await present(connection)

    run(postgres, test)


def test_an_offer_that_has_ended_holds_nothing_back(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> int:
        await write(connection, [MILK], "me")
        await write(connection, [offer(days=-1)], "me")
        return await write(connection, [Withdrawal(kind="product", id="milk")], "me")

    assert run(postgres, test) == 3


def test_a_change_of_another_state_than_expected_is_refused(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> None:
        async def expecting(seq: int | None) -> None:
            await check_expected(connection, {("product", "milk"): seq})

        await expecting(None)
        await write(connection, [MILK], "me")
        await expecting(1)
        with pytest.raises(Stale, match='"1"'):
            await expecting(None)
        with pytest.raises(Stale, match='"1"'):
            await expecting(7)
        await write(connection, [Withdrawal(kind="product", id="milk")], "me")
        await expecting(None)
        with pytest.raises(Stale, match="none"):
            await expecting(2)

    run(postgres, test)


def test_writers_at_once_leave_no_hole_that_a_reader_could_miss(postgres: Postgres):
    async def test(connection: asyncpg.Connection) -> None:
        url = await connection.fetchval("SELECT current_database()")
        others = [await asyncpg.connect(postgres.url(str(url))) for _ in range(4)]
        seen: list[int] = []

        async def writes(number: int) -> None:
            for one in range(20):
                await write(others[number], [ProductState(id=f"p{number}-{one}"), ProductState(id=f"q{one}")], "me")

        async def reads() -> None:
            while len(seen) < 100:
                fresh = await read(connection, seen[-1] if seen else 0, 7)
                seen.extend(one.seq for one in fresh)

        await asyncio.gather(reads(), *(writes(number) for number in range(4)))
        assert seen == list(range(1, 101))
        for other in others:
            await other.close()

    run(postgres, test)


def test_ids_that_come_as_integers_are_text_and_those_with_control_characters_refused():
    decoded = msgspec.json.decode(
        b'{"id": 7, "products": [1, "two"], "starts": "2026-01-01T00:00:00Z", "ends": "2026-01-02T00:00:00Z"}',
        type=OfferState,
    )
    assert (decoded.id, decoded.products) == ("7", ("1", "two"))
    with pytest.raises(InvalidInput, match=r"locations\[0\]"):
        msgspec.json.decode(b'{"id": "a", "locations": ["a\\u0000b"]}', type=ProductState)
