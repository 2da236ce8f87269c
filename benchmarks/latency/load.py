"""An open-loop load generator: requests leave when they are due, not when an answer makes room for them.

Every latency is counted from the moment a request was due, so a stalled server is charged for all the requests
that waited for it (no coordinated omission). Runs as a process of its own:
``python -m benchmarks.latency.load PLAN RESULT``.
It spins between requests that are due within two milliseconds, because timers are no finer than one: give it a core.
"""

import asyncio
import gc
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import numpy as np
import uvloop

from benchmarks.latency.plan import Plan, Stage, requests
from benchmarks.latency.samples import BROKEN, TIMED_OUT, Samples

_SPIN_NS = 2_000_000
_SWEEP_SECONDS = 0.1
_NS = 1_000_000_000


class _Flight(NamedTuple):
    """A request that is due: its stage, and since when in ns."""

    stage: int
    due: int


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._length = 0
        self._status = 0
        self.flight: _Flight | None = None
        self.sent = 0
        self.event = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own, registered nowhere

    def send(self, flight: _Flight, request: bytes, event: bool, now: int) -> None:
        """Send a request; the connection later calls ``Load.answered`` or ``Load.lost`` once."""
        assert self._transport is not None  # noqa: S101 - only connected ones are idle
        self.flight, self.sent, self.event = flight, now, event
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        if not self._length:
            head = received.find(b"\r\n\r\n")
            if head < 0:
                self._received = received
                return
            self._status = int(received[9:12])
            fields = received[:head].lower()
            at = fields.index(b"content-length:") + 15
            end = fields.find(b"\r\n", at)
            self._length = head + 4 + int(fields[at:] if end < 0 else fields[at:end])
        if len(received) < self._length:
            self._received = received
            return
        self._received, self._length = b"", 0
        self._load.answered(self, self._status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._load.lost(self)

    def abort(self) -> None:
        """Break the connection; what it carried is lost."""
        if self._transport is not None:
            self._transport.abort()


class Load:
    """Carries out one plan on the running event loop.

    Args:
        plan: what to do.
        clock: nanoseconds; the one that requests are due by.
    """

    def __init__(self, plan: Plan, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._plan = plan
        self._clock = clock
        self._requests = requests(plan)
        self._random = np.random.default_rng(plan.seed)
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._waiting: deque[_Flight] = deque()
        self._limit = 0
        self._closed: _Flight | None = None
        self._stops = 0
        self._over = False
        self._progress = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stage, self._status, self._event = array("q"), array("q"), array("q")
        self._due, self._sent, self._done = array("q"), array("q"), array("q")

    async def run(self) -> Samples:
        """Carry out every stage, finish all requests under way, and return one sample per request that was due."""
        await asyncio.gather(*(self._connect() for _ in range(max(stage.connections for stage in self._plan.stages))))
        sweeping = asyncio.create_task(self._sweep())
        for number, stage in enumerate(self._plan.stages):
            self._limit = stage.connections
            if stage.rate is None:
                await self._run_closed(number, stage)
            else:
                await self._run_open(number, stage, stage.rate)
        await self._drain()
        self._over = True
        sweeping.cancel()
        for connection in self._idle:
            connection.abort()
        return Samples(
            *(np.array(one, np.int64) for one in (self._stage, self._due, self._sent, self._done)),
            *(np.array(one, np.int64) for one in (self._status, self._event)),
        )

    def answered(self, connection: _Connection, status: int) -> None:
        """Record a response that was read to its end, and send waiting requests."""
        flight = connection.flight
        if flight is None:  # an answer that nobody asked for
            connection.abort()
            return
        now = self._clock()
        self._record(flight, connection.sent, now, status, connection.event)
        connection.flight = None
        self._busy.discard(connection)
        self._idle.append(connection)
        if self._closed is not None and now < self._stops:
            self._waiting.append(self._closed._replace(due=now))
        if self._waiting:
            self._dispatch(now)

    def lost(self, connection: _Connection) -> None:
        """Record the request of a broken connection, and replace the connection until the plan is done."""
        if connection.flight is not None:
            now = self._clock()
            self._record(connection.flight, connection.sent, now, BROKEN, connection.event)
            connection.flight = None
            self._busy.discard(connection)
        elif connection in self._idle:
            self._idle.remove(connection)
        if not self._over:
            task = asyncio.create_task(self._reconnect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_closed(self, number: int, stage: Stage) -> None:
        now = self._clock()
        self._stops = now + int(stage.seconds * _NS)
        self._closed = _Flight(number, now)
        self._waiting.extend([self._closed] * stage.connections)
        self._dispatch(now)
        await asyncio.sleep(stage.seconds)
        await self._drain()
        self._closed = None

    async def _run_open(self, number: int, stage: Stage, rate: float) -> None:
        count = round(rate * stage.seconds)
        gaps_R = self._random.exponential(_NS / rate, count) if self._plan.poisson else np.full(count, _NS / rate)
        due = (self._clock() + np.cumsum(gaps_R).astype(np.int64)).tolist()
        loop = asyncio.get_running_loop()
        sent = loop.create_future()
        place = 0

        def release() -> None:
            nonlocal place
            now = self._clock()
            while place < count and due[place] <= now:
                self._waiting.append(_Flight(number, due[place]))
                place += 1
            if self._waiting:
                self._dispatch(now)
            if place == count:
                sent.set_result(None)
            elif (ahead := due[place] - now) > _SPIN_NS:
                loop.call_later((ahead - _SPIN_NS) / _NS, release)
            else:
                loop.call_soon(release)

        release()
        await sent

    def _dispatch(self, now: int) -> None:
        while self._waiting and self._idle and len(self._busy) < self._limit:
            connection = self._idle.pop()
            self._busy.add(connection)
            request, event = next(self._requests)
            connection.send(self._waiting.popleft(), request, event, now)

    async def _drain(self) -> None:
        while self._waiting or self._busy:
            self._progress.clear()
            await self._progress.wait()

    async def _sweep(self) -> None:
        """Give up overdue requests: break the connection of a sent one, never send a waiting one."""
        patience = int(self._plan.timeout_seconds * _NS)
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self._clock()
            while self._waiting and now - self._waiting[0].due > patience:
                self._record(self._waiting.popleft(), now, now, TIMED_OUT, event=False)
            for connection in [one for one in self._busy if one.flight and now - one.flight.due > patience]:
                if connection.flight is not None:
                    self._record(connection.flight, connection.sent, now, TIMED_OUT, connection.event)
                connection.flight = None
                self._busy.discard(connection)
                connection.abort()

    async def _connect(self) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self), "127.0.0.1", self._plan.port
        )
        self._idle.append(connection)
        if self._waiting:
            self._dispatch(self._clock())

    async def _reconnect(self) -> None:
        while not self._over:
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(_SWEEP_SECONDS)
            else:
                return

    def _record(self, flight: _Flight, sent: int, done: int, status: int, event: bool) -> None:
        self._stage.append(flight.stage)
        self._due.append(flight.due)
        self._sent.append(sent)
        self._done.append(done)
        self._status.append(status)
        self._event.append(event)
        self._progress.set()


def main() -> None:
    """Carry out the plan in the first file, write the samples into the second."""
    plan = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    gc.disable()  # nothing here is cyclic, and a collection would be charged to the server

    async def generate() -> Samples:
        return await Load(plan).run()

    uvloop.run(generate()).save(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
