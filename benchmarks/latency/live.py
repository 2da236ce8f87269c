"""Measures a catalogue that changes while it is asked: when a change counts everywhere, and what it costs requests."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.harness import machine
from benchmarks.harness.connection import KeptConnection, connected
from benchmarks.harness.release import current, own_state, release
from benchmarks.harness.report import Table, write_report
from benchmarks.harness.server import embedded_url, free_port, serve
from benchmarks.latency.traffic import RECOMMEND, traffic
from embeddings.catalogue.columns import Catalogue
from embeddings.release.store import BundleStore

_SERVERS, _WORKERS, _CONNECTIONS = 2, 2, 16
"""Connections are of one server; which of its workers has one is the system's choice, so there are several."""
_BATCH = 10_000
_PRODUCTS, _LOCATIONS = 2_000, 20
"""Of those that the release knows, so many are changed."""


class Effort(Struct, frozen=True):
    """How hard the service is tried.

    Attributes:
        a_second: recommend calls.
        seconds: without changes, with some, and without again.
        changes: in the seconds with changes, at random moments.
        offers, products: how many are written in large batches.
    """

    a_second: float
    seconds: float
    changes: int
    offers: int
    products: int


FULL, QUICK = Effort(500, 40, 200, 10_000, 100_000), Effort(200, 10, 40, 2_000, 10_000)


class Answered(Struct, frozen=True):
    """One answer: on which connection, when it came, how long it took, and which change it had seen."""

    connection: int
    at: float
    took: float
    seq: int


class Committed(Struct, frozen=True):
    """A change: when it was acknowledged, and its seq."""

    at: float
    seq: int


class _Seen(Struct):
    catalogue_seq: int


def run(store: Path, json_file: Path, *, quick: bool) -> Mapping[str, float]:
    """Measure, print, write the JSON, and return the results by name.

    Args:
        store: a store with a release on Complete Journey; one is trained there if it holds none.
        json_file: where everything that was measured goes.
        quick: within a minute or two.
    """
    effort = QUICK if quick else FULL
    version = current(store, lambda _: True) or release(store)
    catalogue = Catalogue.load(BundleStore(store).bundle(version) / "catalogue")
    admin = free_port()
    with own_state(store, version) as own, own_state(store, version) as other, ExitStack() as servers:
        options = "--workers", str(_WORKERS)
        url = embedded_url(own)
        first = servers.enter_context(serve(own, *options, "--admin-port", str(admin)))
        second = servers.enter_context(serve(other, *options, "--database", url))
        found = asyncio.run(_measure([first.port, second.port], admin, catalogue, effort))
    write_report(json_file, {"suite": "live", "quick": quick, "machine": machine.describe(), "found": found})
    table = Table("A catalogue that changes", ["", "figure"])
    for name, figure in found.items():
        table.add(name, f"{figure:,.2f}")
    table.print()
    return found


async def _measure(ports: Sequence[int], admin: int, catalogue: Catalogue, effort: Effort) -> dict[str, float]:
    random = np.random.default_rng(0)
    found: dict[str, float] = {}
    await _load(admin, catalogue)
    load = _Load(ports, effort.a_second)
    await load.during(asyncio.sleep(effort.seconds / 4))  # what is remembered, and what is mapped, is there now
    before = await load.during(asyncio.sleep(effort.seconds))
    committed: list[Committed] = []
    during = await load.during(_change(admin, catalogue, effort, random, committed))
    after = await load.during(asyncio.sleep(effort.seconds))
    quiet = _p99([*before, *after])
    found |= {
        "requests/s": effort.a_second,
        "p99 ms without changes": quiet,
        f"p99 ms with {effort.changes} changes": _p99(during),
        "ratio of p99": _p99(during) / quiet,
    }
    seen = _seen_after(committed, [*during, *after])
    for share in (50, 99, 100):
        found[f"seconds until every connection sees a change, p{share}"] = float(np.percentile(seen, share))
    batches: list[Committed] = []
    begun = time.perf_counter()
    during = await load.during(_large(admin, catalogue, effort, batches))
    settled = await load.during(asyncio.sleep(effort.seconds / 2))
    last = max(_seen_after(batches, [*during, *settled]))
    found |= {
        f"seconds to write {effort.offers + effort.products} things in batches": batches[-1].at - begun,
        "seconds until the last is seen everywhere": last,
        "p99 ms meanwhile": _p99(during),
        "ratio of p99 meanwhile": _p99(during) / quiet,
    }
    await load.close()
    return found


class _Load:
    """Recommend calls at a steady rate, whether or not those before have been answered."""

    def __init__(self, ports: Sequence[int], a_second: float) -> None:
        self._ports = ports
        self._a_second = a_second
        self._bodies: Iterator[bytes] = cycle([one.body for one in traffic().recommendations()])
        self._free: asyncio.Queue[tuple[int, KeptConnection]] = asyncio.Queue()
        self._decoder = msgspec.json.Decoder(_Seen)
        self._opened = 0

    async def during(self, work: Any) -> list[Answered]:
        """Send calls until some work is done, and return their answers; raise RuntimeError if one failed."""
        if not self._opened:
            for port in [port for port in self._ports for _ in range(_CONNECTIONS)]:
                self._free.put_nowait((self._opened, await KeptConnection.open(port)))
                self._opened += 1
        answers: list[Answered] = []
        working = asyncio.ensure_future(work)
        async with asyncio.TaskGroup() as sending:
            begun, number = time.perf_counter(), 0
            while not working.done():
                due = begun + number / self._a_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                sending.create_task(self._send(next(self._bodies), due, answers))
                number += 1
        await working
        return answers

    async def _send(self, body: bytes, due: float, answers: list[Answered]) -> None:
        place, connection = await self._free.get()
        answer = await connection.send(RECOMMEND, body)
        self._free.put_nowait((place, connection))
        at = time.perf_counter()
        answers.append(Answered(place, at, at - due, self._decoder.decode(answer).catalogue_seq))

    async def close(self) -> None:
        """Close the connections."""
        while not self._free.empty():
            self._free.get_nowait()[1].close()


async def _write(admin: int, path: str, body: object) -> Committed:
    """Write something on a connection of its own: the management API closes those that were idle for some seconds."""
    async with connected(admin) as management:
        answer = await management.send(path, msgspec.json.encode(body))
    return Committed(time.perf_counter(), int(msgspec.json.decode(answer)["seq"]))


async def _load(admin: int, catalogue: Catalogue) -> None:
    """Write what is to be changed as the release knows it."""
    locations = [{"id": one} for one in catalogue.locations.ids.ids(range(_LOCATIONS))]
    await _write(admin, "/v1/locations:batch", locations)
    await _write(admin, "/v1/products:batch", [_product(catalogue, row) for row in _rows(catalogue)])


def _rows(catalogue: Catalogue) -> list[int]:
    return np.linspace(0, len(catalogue.products.ids) - 1, _PRODUCTS).astype(np.int64).tolist()


def _product(catalogue: Catalogue, row: int, **more: object) -> dict[str, object]:
    names, labels, codes_NA = catalogue.products.attributes
    codes = codes_NA[row].tolist()
    said = {name: labels[place][codes[place] - 1] for place, name in enumerate(names) if codes[place]}
    return {"id": catalogue.products.ids.id(row), "attributes": said, **more}


def _offer(catalogue: Catalogue, number: int, products: int = 20) -> dict[str, object]:
    now = datetime.now(UTC)
    rows = _rows(catalogue)
    some = [rows[(number * products + place) % len(rows)] for place in range(products)]
    return {
        "id": f"live-{number}",
        "products": catalogue.products.ids.ids(some),
        "starts": now - timedelta(days=5_000),
        "ends": now + timedelta(days=30),
    }


async def _change(
    admin: int,
    catalogue: Catalogue,
    effort: Effort,
    random: np.random.Generator,
    committed: list[Committed],
) -> None:
    """Change offers, products, stock and prices at random moments."""
    rows, begun = _rows(catalogue), time.perf_counter()
    for number, moment in enumerate(np.sort(random.uniform(0, effort.seconds, effort.changes)).tolist()):
        await asyncio.sleep(max(0.0, begun + moment - time.perf_counter()))
        row = rows[int(random.integers(len(rows)))]
        match number % 4:
            case 0:
                path, body = "/v1/offers:batch", _offer(catalogue, int(random.integers(20)))
            case 1:
                path, body = "/v1/products:batch", {"id": f"new-{number}", "attributes": {}, "price": 2.0}
            case 2:
                where = [catalogue.locations.ids.id(int(random.integers(_LOCATIONS)))]
                path, body = "/v1/products:batch", _product(catalogue, row, out_of_stock_at=where)
            case _:
                path, body = "/v1/products:batch", _product(catalogue, row, price=float(random.integers(1, 100)))
        committed.append(await _write(admin, path, [body]))
    await asyncio.sleep(max(0.0, begun + effort.seconds - time.perf_counter()))


async def _large(admin: int, catalogue: Catalogue, effort: Effort, done: list[Committed]) -> None:
    """Write offers and products in large batches, one after the other; leave the last in a list."""
    offers = [_offer(catalogue, 1_000 + number) for number in range(effort.offers)]
    size = len(catalogue.products.ids)
    products = [
        _product(catalogue, number, price=3.5)
        if number < size
        else {"id": f"more-{number}", "attributes": {}, "price": 3.5}
        for number in range(effort.products)
    ]
    for path, things in (("/v1/products:batch", products), ("/v1/offers:batch", offers)):
        for begin in range(0, len(things), _BATCH):
            done[:] = [await _write(admin, path, things[begin : begin + _BATCH])]


def _p99(answers: Sequence[Answered]) -> float:
    return float(np.percentile([one.took for one in answers], 99)) * 1e3


def _seen_after(committed: Sequence[Committed], answers: Sequence[Answered]) -> list[float]:
    """Return for each change how long after its acknowledgement the last connection gave an answer that had seen it."""
    by_connection: dict[int, list[Answered]] = {}
    for one in sorted(answers, key=lambda one: one.at):
        by_connection.setdefault(one.connection, []).append(one)
    return [
        max(
            next((one.at for one in some if one.seq >= change.seq), float("inf")) - change.at
            for some in by_connection.values()
        )
        for change in committed
    ]
