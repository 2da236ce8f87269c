"""Migrations of the database: each once and in order, all or none, and of no other version's schema."""

import asyncio
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest

from embeddings.database.__main__ import main
from embeddings.database.migrate import Migration, migrate, migrations, pending
from embeddings.errors import InvalidInput
from tests.integration.server import Postgres, on_connection

Found = TypeVar("Found")
ALL = [one.name for one in migrations()]


async def up(connection: asyncpg.Connection) -> list[str]:
    return [one.name for one in await migrate(connection, migrations())]


async def tables(connection: asyncpg.Connection) -> int:
    return int(str(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")))


def test_each_is_applied_once_and_in_order(postgres: Postgres) -> None:
    url = postgres.database()
    assert ALL[:4] == ["0001_events", "0002_arrival", "0003_context", "0004_catalogue"]
    assert [one.number for one in migrations()] == list(range(1, len(ALL) + 1))
    assert on_connection(url, up) == ALL
    assert on_connection(url, up) == []


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

    on_connection(url, earlier)
    lacking = on_connection(url, lambda connection: pending(connection, migrations()))
    assert [one.name for one in lacking] == ALL[kept:]
    assert on_connection(url, up) == ALL[kept:]
    assert on_connection(url, events) == 1


def test_to_ask_what_is_pending_changes_nothing(postgres: Postgres) -> None:
    url = postgres.database()
    lacking = on_connection(url, lambda connection: pending(connection, migrations()))
    assert [one.name for one in lacking] == ALL
    assert on_connection(url, tables) == 0


def test_a_newer_schema_is_refused(postgres: Postgres) -> None:
    url = postgres.database()
    newer = [*migrations(), Migration(len(ALL) + 1, "9999_newer", "CREATE TABLE newer (id bigint)")]
    assert len(on_connection(url, lambda connection: migrate(connection, newer))) == len(newer)
    with pytest.raises(InvalidInput, match="9999_newer"):
        on_connection(url, up)


def test_a_changed_migration_is_refused(postgres: Postgres) -> None:
    url = postgres.database()
    on_connection(url, up)
    first, *others = migrations()
    with pytest.raises(InvalidInput, match="0001_events"):
        on_connection(url, lambda connection: migrate(connection, [first._replace(text=first.text + "--"), *others]))


def test_one_that_fails_leaves_nothing_of_those_before_it(postgres: Postgres) -> None:
    url = postgres.database()
    broken = [*migrations(), Migration(len(ALL) + 1, "9999_broken", "CREATE TABLE half (id bigint); SELECT 1 / 0")]
    with pytest.raises(asyncpg.DivisionByZeroError):
        on_connection(url, lambda connection: migrate(connection, broken))
    assert on_connection(url, tables) == 0


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
        on_connection(url, up)
    on_connection(url, lambda connection: connection.execute(statement))
    with pytest.raises(InvalidInput, match=said):
        on_connection(url, up)


def test_an_account_of_another_tool_is_left_alone(postgres: Postgres) -> None:
    url = postgres.database()
    on_connection(url, lambda connection: connection.execute("CREATE TABLE schema_migrations (version text)"))
    assert on_connection(url, up) == ALL


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
