"""What was shown is stored beside the requests, and found again by its id."""

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import asyncpg
import psutil
import pytest

from embeddings.database.event_days import Kept, keep_days
from embeddings.database.migrate import prepare
from serving.state.decision import Decision, is_drawn, new_ids
from serving.state.decisions import FIND, DecisionStore
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from tests.integration.server import Postgres, Server, copy_store, eventually, execute, on_connection
from tests.world import UNTIL

SHOWN = ("id", "kind", "rank", "score", "source")


@pytest.fixture(scope="module")
def pair(published: Any, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Two workers."""
    server = Server(
        copy_store(published[0], tmp_path_factory.mktemp("pair")), "--workers", "2", "--database", postgres.database()
    )
    yield server
    server.stop()


def found(server: Server, recommendation_id: str) -> dict[str, Any]:
    answer = server.client.get(f"/v1/recommendations/{recommendation_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(server: Server, recommendation_id: str) -> dict[str, Any]:
    answer = server.client.get(f"/v1/recommendations/{recommendation_id}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    return answer.json()


def test_what_was_shown_is_found_by_any_worker(pair: Server):
    place = {"latitude": 40.0, "longitude": -74.0, "radius_km": 20_000}
    for customer, kinds, location in (
        ("c017", ["product", "offer"], "north"),
        ("c010", ["product"], None),
        (None, ["product", "offer"], place),
        (None, ["product", "offer"], place),  # from the cache of anonymous answers, with an id of its own
    ):
        answer = pair.recommend(customer, "web", location, kinds=kinds, limit=20)
        for _ in range(4):  # of several connections some lead to the other worker
            with_another = type(pair.client)(base_url=pair.client.base_url)
            shown = with_another.get(f"/v1/recommendations/{answer['recommendation_id']}").json()
            with_another.close()
            assert [{name: one[name] for name in SHOWN} for one in shown.pop("items")] == [
                {name: one[name] for name in SHOWN} for one in answer["items"]
            ]
            at = datetime.fromisoformat(shown.pop("at"))
            assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
            assert at.timestamp() * 1_000 == int(answer["recommendation_id"][:12], 16)
            assert datetime.fromisoformat(shown["context"].pop("at")) == UNTIL
            assert shown == {
                "recommendation_id": answer["recommendation_id"],
                "customer_id": customer,
                "context": {"channel": "web", "location": location, "attributes": {}},
                "placement": None,
                "model_version": answer["model_version"],
                "catalogue_seq": 0,
                "personalised": answer["personalised"],
                "degraded": answer["degraded"],
                "share": 1.0,
            }


def test_each_item_was_shown_with_probability_1(pair: Server):
    shown = found(pair, pair.recommend("c011")["recommendation_id"])
    assert [one["propensity"] for one in shown["items"]] == [1.0] * 10


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_that_cannot_be_written_in_utc_is_stored_as_the_nearest_that_can(pair: Server, at: str):
    shown = found(pair, pair.recommend(at=datetime.fromisoformat(at))["recommendation_id"])
    assert shown["context"]["at"] in {"0002-01-01T00:00:00Z", "9999-01-01T00:00:00Z"}


def test_an_id_is_a_uuid_that_sorts_by_time(pair: Server):
    ids = [pair.recommend("c011")["recommendation_id"] for _ in range(20)]
    assert {UUID(one).version for one in ids} == {7}
    assert {UUID(one).variant for one in ids} == {"specified in RFC 4122"}
    assert len(set(ids)) == 20
    assert sorted(one[:12] for one in ids) == [one[:12] for one in ids]


def test_what_is_not_kept_is_404(pair: Server):
    kept = pair.recommend("c011")["recommendation_id"]
    dry = pair.recommend("c011", dry_run=True)["recommendation_id"]
    assert dry
    for one in (dry, kept.upper().replace("A", "B"), f"f{kept[1:]}", kept[:-1], "0" * 32, "%00", "a b", "é"):
        assert problem(pair, one)["type"] == "urn:opportune:problem:unknown-resource"
    assert found(pair, kept)
    assert pair.client.head(f"/v1/recommendations/{kept}").status_code == 200
    assert pair.client.post(f"/v1/recommendations/{kept}").status_code == 405


def test_what_was_stored_is_counted_and_nothing_is_amiss(pair: Server):
    before = pair.metric("opportune_decisions_total", outcome="stored") or 0
    for _ in range(30):
        pair.recommend("c011")
    eventually(lambda: pair.metric("opportune_decisions_total", outcome="stored") == before + 30, "all to be stored")
    assert pair.metric("opportune_decisions_total", outcome="dropped") == 0
    assert pair.client.get("/readyz").json()["decisions"] is None


@pytest.mark.parametrize(("kind", "share"), [("none", None), ("sampled", 0.1), ("all", 1.0)])
def test_as_many_are_stored_as_were_asked_for(own_store: Path, postgres: Postgres, kind: str, share: float | None):
    url = postgres.database()
    server = Server(own_store, "--database", url, "--decisions", kind)
    ids = [server.recommend("c011")["recommendation_id"] for _ in range(60)]
    server.stop()
    stored = {str(one.hex) for one in execute(url, "SELECT id FROM decisions")}
    drawn = {one for one in ids if is_drawn(one)}
    assert stored == {"none": set[str](), "sampled": drawn, "all": set(ids)}[kind]
    assert set(execute(url, "SELECT share FROM decisions")) == ({share} if stored else set())


def test_one_in_ten_is_drawn():
    ids = new_ids()
    assert 800 < sum(is_drawn(next(ids)) for _ in range(10_000)) < 1_200


def test_what_waits_is_stored_before_the_service_leaves(own_store: Path, postgres: Postgres):
    url = postgres.database()
    server = Server(own_store, "--workers", "2", "--database", url)
    ids = {server.recommend("c011")["recommendation_id"] for _ in range(20)}
    assert server.send(signal.SIGTERM) == 0
    assert {str(one.hex) for one in execute(url, "SELECT id FROM decisions")} == ids


@pytest.fixture
def stopped(postgres: Postgres) -> Generator[Callable[[], None]]:
    """Have PostgreSQL say nothing more until the test ends: it takes connections, and answers none."""
    processes: list[psutil.Process] = []

    def stop() -> None:
        main = psutil.Process(cast("int", postgres.process))
        for one in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # such as one that tidies up, and is done
                one.suspend()
                processes.append(one)

    yield stop
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.resume()


def test_a_silent_database_costs_decisions_and_no_answer_and_keeps_nobody_from_leaving(
    own_store: Path, postgres: Postgres, stopped: Callable[[], None]
):
    server = Server(own_store, "--database", postgres.database())
    server.recommend()
    stopped()
    for _ in range(600):
        assert len(server.recommend(limit=100)["items"]) == 100
    ready = server.client.get("/readyz").json()
    assert ready["ready"]
    assert ready["decisions"]["count"] == server.metric("opportune_decisions_total", outcome="dropped")
    assert ready["decisions"]["count"] >= 100
    assert server.client.get("/readyz?strict").status_code == 503
    assert server.send(signal.SIGTERM) == 0
    assert "decisions are lost" in server.log


# The store itself


def decision(recommendation_id: str, items: int = 3, customer: str = "c", **other: Any) -> Decision:
    one = Decision(
        recommendation_id,
        int(UNTIL.timestamp()),
        customer,
        "web",
        None,
        None,
        {},
        "v",
        0,
        False,
        False,
        [f"p{number}" for number in range(items)],
        ["product"] * items,
        [0.5] * items,
        ["towers"] * items,
        None,
    )
    return one._replace(**other)


def stored(url: str) -> list[str]:
    return sorted(str(one.hex) for one in execute(url, "SELECT id FROM decisions"))


def store_of(url: str) -> DecisionStore:
    return DecisionStore(url, "all", EventStore(url, Invalidations(1)))


def test_a_group_whose_commit_was_not_told_is_stored_once(postgres: Postgres):
    url = postgres.database()
    ids = new_ids()
    first, later = [decision(next(ids)) for _ in range(5)], decision(next(ids))

    async def scenario() -> None:
        await prepare(url)
        store = store_of(url)
        insert = store._insert  # pyright: ignore[reportPrivateUsage]
        answers = iter([asyncpg.ConnectionDoesNotExistError("gone before it was told"), None, None])

        async def told(group: Any) -> None:
            await insert(group)
            if (error := next(answers)) is not None:
                raise error

        store._insert = told  # pyright: ignore[reportPrivateUsage]
        for one in first:
            store.add(one)
        await store._write()  # pyright: ignore[reportPrivateUsage]
        store.add(later)
        await store._write()  # pyright: ignore[reportPrivateUsage]
        assert store.stored == 6

    asyncio.run(scenario())
    assert stored(url) == sorted(one.recommendation_id for one in (*first, later))


def test_one_that_postgresql_refuses_takes_no_other_with_it(postgres: Postgres):
    url = postgres.database()
    ids = new_ids()
    good = [decision(next(ids)) for _ in range(6)]
    bad = [decision(next(ids), customer="a\0b"), decision(next(ids), customer="\ud800")]

    async def scenario() -> None:
        await prepare(url)
        store = store_of(url)
        async with store.writing():
            for one in (*good[:2], bad[0], *good[2:4], bad[1], *good[4:]):
                store.add(one)
            await store.leave()
        assert (store.stored, store.dropped) == (6, 2)

    asyncio.run(scenario())
    assert stored(url) == sorted(one.recommendation_id for one in good)


def test_days_of_decisions_that_are_over_are_forgotten_wherever_they_lie(postgres: Postgres):
    url = postgres.database()

    def moment(days: int) -> datetime:
        return datetime.now(UTC) - timedelta(days=days)

    async def scenario(connection: asyncpg.Connection) -> None:
        await prepare(url)
        await connection.execute("SELECT make_day('decisions', timezone('UTC', now())::date - 12)")
        ids, names = new_ids(), dict[int, str]()
        for days in (13, 12, 11, 10, 0):
            one = f"{int(moment(days).timestamp() * 1_000):012x}{next(ids)[12:]}"
            names[days] = one
            store = store_of(url)
            await store._insert([decision(one)])  # pyright: ignore[reportPrivateUsage]
        parts = await connection.fetch("SELECT tableoid::regclass::text FROM decisions ORDER BY at")
        assert [row[0] for row in parts] == [
            "decisions_other",
            f"decisions_{moment(12):%Y%m%d}",
            "decisions_other",
            "decisions_other",
            f"decisions_{moment(0):%Y%m%d}",
        ]
        await keep_days(connection, Kept(None, None))
        assert await connection.fetchval("SELECT count(*) FROM decisions") == 5
        await keep_days(connection, Kept(None, 10))
        left = {row[0].hex for row in await connection.fetch("SELECT id FROM decisions")}
        assert left == {names[10], names[0]}
        assert await connection.fetchval("SELECT to_regclass($1)", f"decisions_{moment(12):%Y%m%d}") is None

    on_connection(url, scenario)


def test_a_look_up_reads_one_day(postgres: Postgres):
    url = postgres.database()

    async def scenario(connection: asyncpg.Connection) -> list[str]:
        await prepare(url)
        await connection.execute(
            "SELECT make_day('decisions', timezone('UTC', now())::date - ago) FROM generate_series(1, 20) AS ago"
        )
        plan = await connection.fetch(f"EXPLAIN {FIND}", next(new_ids()), datetime.now(UTC))
        return [row[0] for row in plan if " on decisions_" in row[0]]

    assert len(on_connection(url, scenario)) == 1
