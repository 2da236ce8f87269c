"""What an event is attributed to, against a slow oracle that looks at every pair."""

import random
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from embeddings.database.migrate import prepare
from serving.state.decision import Decision, moment_of, new_ids
from serving.state.decisions import DecisionStore
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from tests.integration.server import Postgres, on_connection
from tests.integration.test_event_days import installed

BEGIN = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
STEP = timedelta(minutes=30)
KINDS = ("product", "offer")
SPANS = ((0, 300, 20), (48, 96, 48), (20, 150, 1), (0, 300, 0), (60, 300, 200), (9, 9, 9))
"""In steps: since, until, within."""
DAYS = """
SELECT make_day(parent, $1::date + ahead)
FROM unnest(ARRAY['events', 'decisions']) AS parent, generate_series(1, $2::integer) AS ahead
"""
INSERT = """
INSERT INTO events (source, event_id, received_at, customer_id, type, at, product_id, offer_id, quantity,
                    recommendation_id)
VALUES ('http', $1, $2, $3, $4, $5, $6, $7, 1, $8)
"""


class Happened(NamedTuple):
    event_id: str
    received_at: datetime
    customer: str | None
    type: str
    at: datetime
    product: str | None
    offer: str | None
    names: str | None


class Joined(NamedTuple):
    event_id: str
    how: str
    shown_at: datetime
    impression: str | None
    decision: str | None
    rank: int | None
    score: float | None


class World(NamedTuple):
    decisions: list[Decision]
    events: list[Happened]


def world(seed: int) -> World:
    """Few customers and items, so that much meets, at few moments, so that much happens at once."""
    drawn = random.Random(seed)

    def moment() -> datetime:
        return BEGIN + drawn.randrange(150) * STEP

    def item() -> str:
        return f"i{drawn.randrange(4)}"

    def new_id() -> str:
        ms = int(moment().timestamp() * 1_000) + drawn.randrange(1_000)
        return f"{ms:012x}7{drawn.randrange(16**3):03x}8{drawn.randrange(16**15):015x}"

    decisions: list[Decision] = []
    for _ in range(40):
        pairs = drawn.sample([(kind, f"i{number}") for kind in KINDS for number in range(4)], drawn.randrange(5))
        customer = drawn.choice(["c0", "c1", "c2", None])
        names, kinds = [one for _, one in pairs], [kind for kind, _ in pairs]
        scores, sources = [drawn.random() for _ in pairs], ["towers"] * len(pairs)
        one = Decision(
            new_id(), 0, customer, "web", None, None, {}, "v", 0, False, False, names, kinds, scores, sources, None
        )
        decisions.append(one)
    events: list[Happened] = []
    for number in range(80):
        at, late = moment(), drawn.choice([0, 0, 1, 40, 70]) * STEP
        product, offer = drawn.choice([(item(), None), (None, item()), (item(), item())])
        names = drawn.choice([None, None, None, drawn.choice(decisions).recommendation_id, new_id(), "another's"])
        kind = drawn.choice(["impression", "impression", "click", "purchase"])
        customer = drawn.choice(["c0", "c1", "c2", None])
        events.append(Happened(f"e{number:02}", at + late, customer, kind, at, product, offer, names))
    return World(decisions, events)


def rank(decision: Decision | None, *wanted: tuple[str, str | None]) -> int | None:
    shown: list[tuple[str, str | None]] = []
    if decision is not None:
        shown.extend(zip(decision.kinds, decision.items, strict=True))
    return next((shown.index((kind, one)) + 1 for kind, one in wanted if (kind, one) in shown), None)


def oracle(given: World, since: datetime, until: datetime, within: timedelta) -> list[Joined]:  # noqa: C901
    kept = {one.recommendation_id: one for one in given.decisions}
    ours = {one.names: one.names for one in given.events if one.names and moment_of(one.names)}
    found: list[Joined] = []
    for event in given.events:
        if not since <= max(event.at, event.received_at) < until:
            continue
        wanted = [("offer", event.offer), ("product", event.product)]
        if event.names is not None:
            if event.names in kept:
                decision = kept[event.names]
                place = rank(decision, *wanted)
                score = None if place is None else decision.scores[place - 1]
                at = moment_of(event.names)
                assert at is not None
                found.append(Joined(event.event_id, "named", at, None, event.names, place, score))
            continue
        if event.type == "impression" or event.customer is None:
            continue
        # The last counts: an impression after a decision of the same moment, one that names none of ours last.
        shown: list[tuple[tuple[datetime, int, str, str, int], Joined]] = []
        for preference, (kind, one) in enumerate(reversed(wanted)):
            if one is None:
                continue
            for decision in given.decisions:
                at, place = moment_of(decision.recommendation_id), rank(decision, (kind, one))
                assert at is not None
                said = at.replace(microsecond=0)  # an event of that second came after it
                if decision.customer_id == event.customer and place is not None and said <= event.at <= said + within:
                    id_, score = decision.recommendation_id, decision.scores[place - 1]
                    order = (said, 0, id_, "", preference)
                    shown.append((order, Joined(event.event_id, "decision", at, None, id_, place, score)))
            for other in given.events:
                same = other.customer == event.customer and (other.product if kind == "product" else other.offer) == one
                known = max(other.at, other.received_at) < until
                if other.type == "impression" and same and known and other.at <= event.at <= other.at + within:
                    id_ = ours.get(other.names or "")
                    decision = kept.get(id_ or "")
                    place = rank(decision, (kind, one))
                    score = None if decision is None or place is None else decision.scores[place - 1]
                    order = (other.at, 1, id_ or "z", other.event_id, preference)
                    named = None if decision is None else id_
                    joined = Joined(event.event_id, "impression", other.at, other.event_id, named, place, score)
                    shown.append((order, joined))
        if shown:
            found.append(max(shown)[1])
    return sorted(found)


async def put(url: str, connection: asyncpg.Connection, given: World) -> None:
    await connection.execute("TRUNCATE events, decisions")
    store = DecisionStore(url, "all", EventStore(url, Invalidations(1)))
    await store._insert(given.decisions)  # pyright: ignore[reportPrivateUsage]
    await connection.executemany(INSERT, given.events)


async def attributed(
    connection: asyncpg.Connection, since: datetime, until: datetime, within: timedelta
) -> list[Joined]:
    records = await connection.fetch(
        "SELECT event_id, how, shown_at, impression_id, recommendation_id, rank, score FROM attributed($1, $2, $3)",
        since,
        until,
        within,
    )
    return sorted(Joined(*record) for record in records)


def test_every_event_is_attributed_as_the_oracle_says(postgres: Postgres):
    url = postgres.database()
    how: dict[str, int] = {}

    async def scenario(connection: asyncpg.Connection) -> None:
        await prepare(url)
        await installed(connection, 10)
        await connection.execute(DAYS, BEGIN.date(), 1)  # what is of other days lies in the partition for all else
        for seed in range(40):
            given = world(seed)
            await put(url, connection, given)
            for since, until, within in SPANS:
                asked = BEGIN + since * STEP, BEGIN + until * STEP, within * STEP
                found = await attributed(connection, *asked)
                assert found == oracle(given, *asked), (seed, since, until, within)
                for one in found:
                    key = one.how + (" ranked" if one.rank is not None else "") + (" kept" if one.decision else "")
                    how[key] = how.get(key, 0) + 1

    on_connection(url, scenario)
    every = {"named kept", "named ranked kept", "decision ranked kept"}
    every |= {"impression", "impression kept", "impression ranked kept"}
    assert {one for one, times in how.items() if times > 5} == every, "the worlds hold everything"


def test_days_that_it_does_not_need_are_not_read(postgres: Postgres):
    """Where others are being dropped, nobody waits."""
    url = postgres.database()

    async def scenario(connection: asyncpg.Connection) -> None:
        await prepare(url)
        await installed(connection, 10)
        await connection.execute(DAYS, BEGIN.date(), 3)
        given = world(0)
        # What names an earlier decision, or arrived late, needs earlier days.
        day, window = timedelta(days=1), timedelta(hours=1)
        prompt = [one._replace(received_at=one.at, names=None) for one in given.events]
        await put(url, connection, given._replace(events=prompt))
        since = BEGIN + 2 * day
        expected = oracle(given._replace(events=prompt), since, since + day, window)
        assert expected
        other = await asyncpg.connect(url)
        async with other.transaction():
            for name in ("events", "decisions"):
                await other.execute(f"LOCK TABLE {name}_{BEGIN + 3 * day:%Y%m%d}, {name}_{BEGIN + 4 * day:%Y%m%d}")
            await other.execute("LOCK TABLE decisions_other, events_other")
            await connection.execute("SET lock_timeout = 1000")
            assert await attributed(connection, since, since + day, window) == expected
        await other.close()

    on_connection(url, scenario)


def test_the_database_reads_the_moment_of_an_id_as_the_service_does(postgres: Postgres):
    url = postgres.database()

    async def scenario(connection: asyncpg.Connection) -> None:
        await prepare(url)
        await installed(connection, 10)
        for one in [next(new_ids()), "0" * 12 + "7" + "0" * 3 + "8" + "0" * 15]:
            assert await connection.fetchval("SELECT decision_moment(decision_named($1))", one) == moment_of(one)

    on_connection(url, scenario)
