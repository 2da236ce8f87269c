"""Servers for the integration tests; when one fails, the log of its server is shown."""

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.integration.server import Postgres, Server, copy_store


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Server):
                report.sections.append((f"log of {name}", value.log[-10_000:]))
    return report


@pytest.fixture(scope="session")
def anybodys() -> Generator[Path]:
    """A temporary folder of a short path that other users may enter, which those of pytest are closed to."""
    with tempfile.TemporaryDirectory(prefix="opportune-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(anybodys: Path) -> Generator[Postgres]:
    """One PostgreSQL for all servers that do not need to embed theirs."""
    postgres = Postgres(anybodys / "postgres")
    yield postgres
    postgres.close()


@pytest.fixture(scope="session")
def reader(published: tuple[BundleStore, Manifest], anybodys: Path) -> Generator[Server]:
    """A server for tests that change nothing; its PostgreSQL is the embedded one."""
    server = Server(copy_store(published[0], anybodys / "reader"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def recorder(
    published: tuple[BundleStore, Manifest], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Server]:
    """A server for events, shared by a module: each test takes customers of its own."""
    store = copy_store(published[0], tmp_path_factory.mktemp("recorder"))
    server = Server(store, "--database", postgres.database())
    yield server
    server.stop()


@pytest.fixture
def own_store(published: tuple[BundleStore, Manifest], anybodys: Path) -> Path:
    """A store with one release, for a single test."""
    return copy_store(published[0], Path(tempfile.mkdtemp(dir=anybodys)))


@pytest.fixture
def own(own_store: Path, postgres: Postgres) -> Generator[Server]:
    """A server for a single test, started on its own store."""
    server = Server(own_store, "--database", postgres.database())
    yield server
    server.stop()
