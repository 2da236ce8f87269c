"""Measures what it costs to take events: many in a request beside a bare COPY, and one by one on several servers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.harness import machine
from benchmarks.harness.connection import KeptConnection, connected
from benchmarks.harness.release import current, own_state, release
from benchmarks.harness.report import Table, write_report
from benchmarks.harness.server import embedded_url, serve

_EVENTS = "/v1/events"
_AT_ONCE, _SENDERS = 1_000, 8
_CUSTOMERS, _PRODUCTS = 10_000, 5_000
_SERVERS, _A_SECOND, _CONNECTIONS = 4, 200.0, 4
_COPIES: Mapping[str, str] = {"COPY": "INCLUDING ALL", "COPY without indexes": "INCLUDING DEFAULTS"}
"""Into tables of the same columns; one with the indexes of events, too."""


class Effort(Struct, frozen=True):
    """How many events to send in large requests, and for how many seconds to send single ones."""

    events: int
    seconds: float


FULL, QUICK = Effort(1_000_000, 60), Effort(100_000, 15)


class Sent(Struct, frozen=True):
    """One event of the benchmark, as the HTTP contract has it."""

    event_id: str
    type: str
    customer_id: str
    product_id: str
    at: datetime
    quantity: float
    value: float


def run(store: Path, json_file: Path, *, quick: bool) -> Mapping[str, float]:
    """Measure, print, write the JSON, and return the results by name.

    Args:
        store: a store with a release on Complete Journey; one is trained there if it holds none.
        json_file: where everything that was measured goes.
        quick: within a minute.
    """
    effort = QUICK if quick else FULL
    version = current(store, lambda _: True) or release(store)
    with own_state(store, version) as own, ExitStack() as servers:
        url = embedded_url(own)
        first = servers.enter_context(serve(own))
        found = asyncio.run(_large(first.port, url, effort.events))
        ports = [first.port]
        for _ in range(_SERVERS - 1):
            other = servers.enter_context(own_state(store, version))
            ports.append(servers.enter_context(serve(other, "--database", url)).port)
        found |= asyncio.run(_single(ports, effort.seconds))
    write_report(json_file, {"suite": "events", "quick": quick, "machine": machine.describe(), "found": found})
    table = Table("Events", ["", "figure"])
    for name, figure in found.items():
        table.add(name, f"{figure:,.2f}")
    table.print()
    return found


def _events(count: int) -> list[Sent]:
    random = np.random.default_rng(0)
    customers, products = random.integers(_CUSTOMERS, size=count), random.integers(_PRODUCTS, size=count)
    now = datetime.now(UTC)
    return [
        Sent(uuid4().hex, "purchase", f"c{customer}", f"p{product}", now - timedelta(seconds=place % 3_600), 1.0, 2.5)
        for place, (customer, product) in enumerate(zip(customers.tolist(), products.tolist(), strict=True))
    ]


async def _large(port: int, url: str, count: int) -> dict[str, float]:
    """Measure events a second over HTTP and by COPY."""
    events = _events(count)
    bodies = [msgspec.json.encode({"events": events[begin : begin + _AT_ONCE]}) for begin in range(0, count, _AT_ONCE)]
    waiting = iter(bodies)

    async def send() -> None:
        async with connected(port) as connection:
            for body in waiting:
                answer = await connection.send(_EVENTS, body)
                assert answer.startswith(b'{"accepted":%d,' % _AT_ONCE), answer  # noqa: S101 - else nothing is measured

    begun = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(_SENDERS)))
    found = {"events/s over HTTP": count / (time.perf_counter() - begun)}
    columns = ["source", *Sent.__struct_fields__]
    rows = [("copy", *msgspec.structs.astuple(one)) for one in events]
    connection = await asyncpg.connect(url)
    for name, including in _COPIES.items():
        await connection.execute(f"CREATE TABLE bare (LIKE events {including})")
        begun = time.perf_counter()
        await connection.copy_records_to_table("bare", records=rows, columns=columns)
        found[f"events/s by {name}"] = count / (time.perf_counter() - begun)
        found[f"share of {name}"] = found["events/s over HTTP"] / found[f"events/s by {name}"]
        await connection.execute("DROP TABLE bare")
    await connection.close()
    return found


async def _single(ports: Sequence[int], seconds: float) -> dict[str, float]:
    """Measure the time to the acknowledgement of single events, from the moment each is due."""
    free: dict[int, asyncio.Queue[KeptConnection]] = {port: asyncio.Queue() for port in ports}
    latencies: list[float] = []

    async def send(port: int, one: Sent, due: float) -> None:
        connection = await free[port].get()
        answer = await connection.send(_EVENTS, msgspec.json.encode({"events": [one]}))
        assert answer.startswith(b'{"accepted":1,'), answer  # noqa: S101
        free[port].put_nowait(connection)
        latencies.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as sending:
        for port in ports:
            for _ in range(_CONNECTIONS):
                free[port].put_nowait(await KeptConnection.open(port))
        begun = time.perf_counter()
        for number, one in enumerate(_events(int(seconds * _A_SECOND))):
            due = begun + number / _A_SECOND
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sending.create_task(send(ports[number % len(ports)], one, due))
    for connections in free.values():
        while not connections.empty():
            connections.get_nowait().close()
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return {
        f"p50 ms, {len(ports)} servers at {_A_SECOND:.0f}/s": float(p50),
        f"p99 ms, {len(ports)} servers at {_A_SECOND:.0f}/s": float(p99),
    }
