"""Migrations of the database: each once and in order, all or none, and of no other version's schema."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest

from embeddings.database.__main__ import main
from embeddings.database.migrate import Migration, migrate, migrations, pending
from embeddings.errors import InvalidInput
from tests.integration.conftest import Postgres

Found = TypeVar("Found")
ALL = ["0001_events", "0002_arrival", "0003_context", "0004_catalogue", "0005_event_days"]


def run(url: str, test: Callable[[asyncpg.Connection], Awaitable[Found]]) -> Found:
    async def connected() -> Found:
        connection = await asyncpg.connect(url)
        try:
            return await test(connection)
        finally:
            await connection.close()

    return asyncio.run(connected())


async def up(connection: asyncpg.Connection) -> list[str]:
    return [one.name for one in await migrate(connection, migrations())]


async def tables(connection: asyncpg.Connection) -> int:
    return int(str(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")))


def test_each_is_applied_once_and_in_order(postgres: Postgres) -> None:
    url = postgres.database()
    assert [one.name for one in migrations()] == ALL
    assert [one.number for one in migrations()] == [1, 2, 3, 4, 5]
    assert run(url, up) == ALL
    assert run(url, up) == []


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_database_that_kept_no_account_is_taken_on_from_where_it_was(postgres: Postgres, kept: int) -> None:
    url = postgres.database()

    async def earlier(connection: asyncpg.Connection) -> None:
        for one in migrations()[:kept]:
            await connection.execute(one.text)
        await connection.execute(
            "INSERT INTO events (event_id, customer_id, type, at, quantity) VALUES ('e', 'c', 'view', now(), 1)"
        )

    async def events(connection: asyncpg.Connection) -> int:
        return int(str(await connection.fetchval("SELECT count(*) FROM events WHERE context IS NULL AND seq > 0")))

    run(url, earlier)
    lacking = run(url, lambda connection: pending(connection, migrations()))
    assert [one.name for one in lacking] == ALL[kept:]
    assert run(url, up) == ALL[kept:]
    assert run(url, events) == 1


def test_to_ask_what_is_pending_changes_nothing(postgres: Postgres) -> None:
    url = postgres.database()
    lacking = run(url, lambda connection: pending(connection, migrations()))
    assert [one.name for one in lacking] == ALL
    assert run(url, tables) == 0


def test_a_newer_schema_is_refused(postgres: Postgres) -> None:
    url = postgres.database()
    newer = [*migrations(), Migration(6, "0006_newer", "CREATE TABLE newer (id bigint)")]
    assert len(run(url, lambda connection: migrate(connection, newer))) == 6
    with pytest.raises(InvalidInput, match="0006_newer"):
        run(url, up)


def test_a_changed_migration_is_refused(postgres: Postgres) -> None:
    url = postgres.database()
    run(url, up)
    first, *others = migrations()
    with pytest.raises(InvalidInput, match="0001_events"):
        run(url, lambda connection: migrate(connection, [first._replace(text=first.text + "--"), *others]))


def test_one_that_fails_leaves_nothing_of_those_before_it(postgres: Postgres) -> None:
    url = postgres.database()
    broken = [*migrations(), Migration(6, "0006_broken", "CREATE TABLE half (id bigint); SELECT 1 / 0")]
    with pytest.raises(asyncpg.DivisionByZeroError):
        run(url, lambda connection: migrate(connection, broken))
    assert run(url, tables) == 0


def test_of_several_at_once_one_migrates_and_the_others_find_it_done(postgres: Postgres) -> None:
    url = postgres.database()

    async def all_at_once() -> list[list[str]]:
        connections = [await asyncpg.connect(url) for _ in range(4)]
        try:
            return await asyncio.gather(*(up(one) for one in connections))
        finally:
            for one in connections:
                await one.close()

    assert sorted(asyncio.run(all_at_once())) == [[], [], [], ALL]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE events (event_id uuid, context jsonb, seq bigint)", "another application"),
        ("DROP TABLE events", "expected the table events"),
    ],
)
def test_a_database_that_is_not_its_own_any_more_is_refused(postgres: Postgres, statement: str, said: str) -> None:
    url = postgres.database()
    if statement.startswith("DROP"):
        run(url, up)
    run(url, lambda connection: connection.execute(statement))
    with pytest.raises(InvalidInput, match=said):
        run(url, up)


def test_an_account_of_another_tool_is_left_alone(postgres: Postgres) -> None:
    url = postgres.database()
    run(url, lambda connection: connection.execute("CREATE TABLE schema_migrations (version text)"))
    assert run(url, up) == ALL


def test_the_command_says_what_it_does(
    postgres: Postgres,
    own_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPPORTUNE_DATABASE", postgres.database())
    for options, said in (
        (["--dry-run"], "".join(f"would apply {name}\n" for name in ALL)),
        ([], "".join(f"applied {name}\n" for name in ALL)),
        ([], "the schema is that of this version\n"),
    ):
        monkeypatch.setattr("sys.argv", ["opportune-migrate", "--store", str(own_store), *options])
        main()
        assert capsys.readouterr().out == said


def test_the_command_sets_up_no_database_beside_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["opportune-migrate", "--store", str(tmp_path / "no"), "--dry-run"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert not (tmp_path / "no").exists()
