"""A real server in a process of its own, and a real PostgreSQL to point it at."""

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from embeddings.database.postgres import database
from embeddings.ranking.statistics import PRODUCT_STATISTICS
from embeddings.release.bundle import (
    BUNDLE,
    HISTORIES,
    STATISTICS,
    hash_files,
    read_histories_manifest,
    read_manifest,
    write_manifest,
)
from embeddings.release.store import BundleStore
from tests.world import UNTIL, tables

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30
"""How long to look for what must come; a bound for a broken service, not an expectation."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
    """Look again and again until something is found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(
    store: Path, log: Path, *options: str, program: Sequence[str] = ("-m", "serving")
) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a server without waiting for it; returns its process and its port."""
    port = free_port()
    command = [sys.executable, *program, "--store", str(store), "--port", str(port)]
    # A server on the default port would be in the way of every other.
    command += ["--admin-port", "0", *options]
    with log.open("ab") as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT), port


class Server:
    """One running server; ``start`` begins it anew on the same store after it ended."""

    def __init__(self, store: Path, *options: str) -> None:
        self.store = store
        self.options = options
        self.log_path = store / "server.log"
        self.start()

    def start(self) -> None:
        self.process, self.port = serve(self.store, self.log_path, *self.options)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_SECONDS)
        eventually(self._up, "/readyz")

    def _up(self) -> bool:
        assert self.process.poll() is None, f"the server ended:\n{self.log}"
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def send(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(PATIENCE_SECONDS)
        self.client.close()
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGTERM)

    def recommend(
        self, customer: str | None = None, channel: str = "web", location: object = None, **rest: Any
    ) -> dict[str, Any]:
        """A recommendation, which must succeed; ``at`` goes into the context, the cut-off unless given."""
        at: datetime | None = rest.pop("at", UNTIL)
        context = {"channel": channel, "location": location, "at": at and at.isoformat()}
        answer = self.client.post("/v1/recommend", json={"customer_id": customer, "context": context, **rest})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def report(self, *events: dict[str, Any]) -> dict[str, Any]:
        """Report events, which must not be refused as a whole."""
        answer = self.client.post("/v1/events", json={"events": list(events)})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def metric(self, name: str, **labels: str) -> float | None:
        """A sample of /metrics, or None."""
        samples = [
            sample
            for family in text_string_to_metric_families(self.client.get("/metrics").text)
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return samples[0].value if samples else None


def event(customer: str, product: str | None, at: datetime, kind: str = "purchase", **rest: object) -> dict[str, Any]:
    """A new event as JSON."""
    return {
        "event_id": uuid4().hex,
        "type": kind,
        "customer_id": customer,
        "product_id": product,
        "at": at.isoformat(),
        **rest,
    }


def ids(recommendation: dict[str, Any]) -> list[str]:
    return [item["id"] for item in recommendation["items"]]


@cache
def world() -> dict[str, list[dict[str, Any]]]:
    """The tables that the release was trained on, row by row."""
    return {name: frame.to_dicts() for name, frame in tables().items()}


@cache
def carried(location: str) -> frozenset[str]:
    """What a location carries as far as the tables say before the cut-off; of the two stores only."""
    sold = {one["product_id"] for one in world()["events"] if one["location"] == location and one["at"] < UNTIL}
    return frozenset(sold | {one["product_id"] for one in world()["products"] if location in (one["locations"] or ())})


def assortment(location: str) -> frozenset[str]:
    """What a location shows: its own, or what comparable ones carry, those of its region or else of all."""
    own = {"north": ("north",), "south": ("south",), "nowhere": ("north", "south"), "dateline": ("south",)}
    return frozenset[str]().union(*(carried(store) for store in own.get(location, ("north",))))


def eligible_products(channel: str, locations: Collection[str] | None, at: datetime) -> set[str]:
    """The products that may be shown: by brute force, from the tables. None means any location.

    Of the promotion plan a release holds what had not ended at its cut-off.
    """
    match channel:
        case "store":
            places = ["north", "south"] if locations is None else locations
            return set[str]().union(*(assortment(location) for location in places))
        case "mailer":
            return {
                one["product_id"]
                for one in world()["promotions"]
                if one["channel"] == channel and one["starts"] <= at < one["ends"] > UNTIL
                if locations is None or one["location"] in locations
            }
        case _:
            return {one["product_id"] for one in world()["products"]}


def eligible_offers(channel: str, locations: Collection[str] | None, at: datetime, customer: str | None) -> set[str]:
    """The offers that may be shown: by brute force, from the tables."""
    audiences = {one["customer_id"]: one["audiences"] for one in world()["customers"]}.get(customer or "", [])
    return {
        one["offer_id"]
        for one in world()["offers"]
        if one["starts"] <= at < one["ends"]
        if one["channels"] is None or channel in one["channels"]
        if one["locations"] is None or locations is None or set(one["locations"]) & set(locations)
        if one["audience"] is None or one["audience"] in audiences
    }


def copy_store(published: BundleStore, folder: Path) -> Path:
    """A store of one's own with the release that was published."""
    version = published.current()
    for kind in (BUNDLE, HISTORIES):
        source = published.bundle(version) if kind == BUNDLE else published.histories(version)
        shutil.copytree(source, folder / source.parent.name / version)
    folder.chmod(0o755)
    (folder / "CURRENT").write_text(version + "\n")
    return folder


def release(store: Path, version: str, gap: float) -> None:
    """Publish the current release once more, under another version and with another usual gap of every product."""
    bundles = BundleStore(store)
    bundles.publish(_stage(bundles, version, gap))


def _stage(bundles: BundleStore, version: str, gap: float) -> Path:
    current, staged = bundles.current(), bundles.stage()
    for source, target in ((bundles.bundle(current), BUNDLE), (bundles.histories(current), HISTORIES)):
        shutil.copytree(source, staged / target, dirs_exist_ok=True)
    figures = staged / BUNDLE / STATISTICS / "products.npy"
    products_NP = np.load(figures)
    products_NP[:, PRODUCT_STATISTICS.index("gap")] = gap
    np.save(figures, products_NP)
    manifest = read_manifest(staged / BUNDLE)
    files = hash_files(staged / BUNDLE)
    write_manifest(staged / BUNDLE, msgspec.structs.replace(manifest, version=version, files=files))
    past = read_histories_manifest(staged / HISTORIES)
    write_manifest(staged / HISTORIES, msgspec.structs.replace(past, version=version))
    return staged


def lay_beside(store: Path, version: str) -> Path:
    """The current release under another version, in the store but not current; returns the bundle."""
    bundles = BundleStore(store)
    staged = _stage(bundles, version, gap=40.0)
    (staged / BUNDLE).rename(bundles.bundle(version))
    (staged / HISTORIES).rename(bundles.histories(version))
    return bundles.bundle(version)


def point_at(store: Path, version: str) -> None:
    """Make a version current without looking at it, as a broken tool would."""
    fresh = store / "CURRENT.fresh"
    fresh.write_text(version)
    fresh.rename(store / "CURRENT")


class Postgres:
    """A PostgreSQL of the tests' own, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        self.start()

    @property
    def process(self) -> int | None:
        """Its process, or None if it does not run."""
        return postgres_of(self._folder)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{uuid4().hex}"
        execute(self.url("postgres"), f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        """The URL of a database of some name."""
        return f"postgresql://postgres@/{name}?host={self._folder / 'state' / 'postgres'}"

    def start(self) -> None:
        self._running.enter_context(database(None, self._folder))

    def stop(self) -> None:
        self._running.close()

    def close(self) -> None:
        """Stop for good; the folder is the caller's."""
        self.stop()


def on_connection(url: str, work: Callable[[asyncpg.Connection], Awaitable[Found]]) -> Found:
    """Do some work on a connection of its own."""

    async def connected() -> Found:
        connection = await asyncpg.connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(connected())


def execute(url: str, *statements: str) -> list[Any]:
    """Run statements on a connection of their own; returns the first column of what the last one finds."""

    async def run(connection: asyncpg.Connection) -> list[Any]:
        found = [await connection.fetch(statement) for statement in statements]
        return [row[0] for row in found[-1]]

    return on_connection(url, run)


def postgres_of(store: Path) -> int | None:
    """The process of the embedded PostgreSQL of a store, or None if it does not run."""
    pid_file = store / "state" / "postgres" / "postmaster.pid"
    if not pid_file.exists():
        return None
    try:
        written = pid_file.read_text().splitlines()
        if not written:  # it is being written
            return None
        process = psutil.Process(int(written[0]))
        return None if process.status() == psutil.STATUS_ZOMBIE else process.pid
    except psutil.NoSuchProcess:
        return None
