"""Limits on clients that have not asked anything yet: time and bytes for a request, and connections in all.

uvicorn bounds none of it with httptools, whose parser keeps a header for as long as it grows. A request begins, and
takes a place, only once it has arrived whole.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import httptools
from prometheus_client import Counter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.admission import Admission
from serving.api.post import LARGEST_BODY
from serving.refusals import MALFORMED, OVERLOAD, Refusal, Why, refusal
from serving.settings import Limits

_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})
"""They are how an operator sees the overload. Every other path may be routed to work, however it is written."""
_SWEEP_SECONDS = 0.25
_PIPELINED = 16
"""How many requests of one connection may wait for the answer to the one before."""

_UPGRADES = frozenset({b"connection", b"upgrade", b"http2-settings"})


class Connections:
    """The state that all connections of one worker share.

    Attributes:
        waiting: those that wait for their client, to ask or to go on asking, the longest waiting first.
        body_bytes: what has arrived of bodies that are not whole yet.

    Args:
        limits: what a client may cost.
        admission: lets requests in.
        refused: counts by why.
    """

    def __init__(self, limits: Limits, admission: Admission, refused: Counter) -> None:
        self.limits = limits
        self.admission = admission
        self.waiting: OrderedDict[Connection, None] = OrderedDict()
        self.body_bytes = 0
        self.slow = refusal(
            "slow",
            HTTPStatus.REQUEST_TIMEOUT,
            f"expected the head of a request within {limits.head_seconds:g} s and its body within "
            f"{limits.body_seconds:g} s",
        )
        self.head = refusal(
            "head",
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"expected a head of at most {limits.head_bytes} bytes and {limits.head_lines} header lines",
        )
        self.busy = {
            (close, body): OVERLOAD.written(close=close, body=body) for close in (True, False) for body in (True, False)
        }
        self._refused = refused

    def count(self, why: Why) -> None:
        """Count a refusal by its reason."""
        self._refused.labels(why).inc()

    def took(self, length: int) -> None:
        """Count a part of a body; if all take too much, cut off the connection that has waited longest with one."""
        self.body_bytes += length
        if self.body_bytes > self.limits.bodies_bytes:
            longest = next((one for one in self.waiting if one.holds_body), None)
            if longest is not None:
                self.count("bodies")
                longest.cut_off()

    async def watch(self, connections: Collection[Any]) -> None:
        """Cut off those of a server's connections whose time has run out; go on for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            for one in [one for one in connections if one.deadline < now]:
                one.overdue()


class Connection(HttpToolsProtocol):
    """One connection; it passes a request to the application when all of it is here.

    A request whose body is too large begins before that, as the application refuses it without reading it. What is
    left of it is read and forgotten within the time that it may take.

    Attributes:
        deadline: when it is cut off, on the loop's clock.
    """

    def __init__(self, shared: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._shared = shared
        self._limits = shared.limits
        self._part: Literal["head", "body"] | None = None
        self._unparsed = 0  # bytes since the parser last told of something
        self._held: tuple[RequestResponseCycle, Any] | None = None
        self._fault = MALFORMED
        self.deadline = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; beyond the limit, abort the one that has waited longest, or this one if none waits."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._shared.count("connections")
            if not self._shared.waiting:
                transport.abort()
                return
            self._shared.waiting.popitem(last=False)[0].transport.abort()
        self._wait(self._limits.idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._shared.waiting.pop(self, None)
        self._take_held()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; refuse a request that is malformed or has too large a head."""
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_anew(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._fault)
            return
        if self._unparsed > self._limits.head_bytes:
            self._refuse(self._shared.head)
        elif self._held is not None:
            self._ask_for_body(self._held[0])

    def on_message_begin(self) -> None:
        """Note that a head begins, and when it has to be complete."""
        super().on_message_begin()
        self._part = "head"
        self.deadline = self.loop.time() + self._limits.head_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line of a head; ignore one that trails a body."""
        if self._part == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the size of the head, then hold the request until its body is whole."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError
            return
        if len(self.headers) > self._limits.head_lines or (
            self._unparsed > self._limits.head_bytes
            and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._limits.head_bytes
        ):
            self._fault = self._shared.head
            raise ValueError
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError
        self._part, self._unparsed = "body", 0
        self.deadline = self.loop.time() + self._limits.body_seconds
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a body until it is whole; pass the request on at once if it is larger than any may be."""
        self._unparsed = 0
        if self._held is None:
            super().on_body(body)
            return
        cycle = self._held[0]
        cycle.body += body
        self._shared.took(len(body))
        if len(cycle.body) > LARGEST_BODY:
            cycle.message_event.set()
            self._release()

    def on_message_complete(self) -> None:
        """Pass a request that has arrived whole to the application."""
        if self.parser.should_upgrade():
            return
        self._part, self._unparsed = None, 0
        super().on_message_complete()
        if self._held is not None:
            self._release()
        elif self.cycle.response_complete:
            self._wait(self._limits.idle_seconds)

    def on_response_complete(self) -> None:
        """Go on with the request that was sent meanwhile, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self._held is not None:
                self._ask_for_body(self._held[0])
        elif self._part is None:
            self._wait(self._limits.idle_seconds)
        else:
            self._shared.waiting[self] = None

    def _read_anew(self, rest: bytes) -> None:
        """Read a request as if it had not asked for an upgrade: the parser would take its body for something else."""
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers if name not in _UPGRADES]
        self.parser, self._unparsed = httptools.HttpRequestParser(self), 0
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def shutdown(self) -> None:
        """Shut down, and give a request that has not arrived whole no more than ``leave_seconds``."""
        super().shutdown()
        if self in self._shared.waiting:
            self.deadline = min(self.deadline, self.loop.time() + self._limits.leave_seconds)

    @property
    def holds_body(self) -> bool:
        """Return whether this connection holds a part of a body."""
        return self._held is not None and len(self._held[0].body) > 0

    def cut_off(self) -> None:
        """Give up a request that has not arrived whole."""
        self._take_held()
        self.transport.abort()

    def overdue(self) -> None:
        """Cut off a client that took too long to ask, or to read its answer."""
        if self._part is not None and self in self._shared.waiting and not self.transport.is_closing():
            self._refuse(self._shared.slow)
        else:
            self.transport.abort()

    def _wait(self, seconds: float) -> None:
        self._shared.waiting[self] = None
        self.deadline = self.loop.time() + seconds

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.more_body:
            self._held = cycle, app
            self._shared.waiting[self] = None
            self._shared.took(len(cycle.body))  # what came while an earlier request was answered
        else:
            self._enter(cycle, app)

    def _ask_for_body(self, cycle: RequestResponseCycle) -> None:
        """Send 100 Continue if it was asked for; pass a body declared too large to the application at once."""
        for name, value in cycle.scope["headers"]:
            if name == b"content-length" and int(value) > LARGEST_BODY:
                self._release()
                return
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_held(self) -> tuple[RequestResponseCycle, Any] | None:
        held, self._held = self._held, None
        if held is not None:
            self._shared.body_bytes -= len(held[0].body)
        return held

    def _release(self) -> None:
        held = self._take_held()
        if held is not None:
            self._enter(*held)

    def _enter(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._shared.waiting.pop(self, None)
        if self._part is None:
            self.deadline = self.loop.time() + self._limits.answer_seconds
        if cycle.scope["path"] in _ALWAYS:
            super()._start_asgi_task(cycle, app)
        else:
            self._shared.admission.enter(partial(self._begin, cycle, app), partial(self._turn_away, cycle))

    def _begin(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not self.transport.is_closing():
            super()._start_asgi_task(cycle, app)

    def _turn_away(self, cycle: RequestResponseCycle) -> None:
        """Answer a request that is not let in; a task and the application would cost several times as much."""
        self._shared.count("overload")
        if self.transport.is_closing():
            return
        if self.flow.write_paused:  # it does not read what it is told
            self.transport.abort()
            return
        cycle.response_started = cycle.response_complete = True
        self.transport.write(self._shared.busy[not cycle.keep_alive, cycle.scope["method"] != "HEAD"])
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _refuse(self, why: Refusal) -> None:
        """Answer a request that cannot be read any further, and close the connection."""
        self._shared.count(why.why)
        # The answer to an earlier request must not be mixed with this one.
        if self in self._shared.waiting and not (self.cycle and self.cycle.response_started and self._part == "body"):
            self.transport.write(why.written(close=True))
            self.transport.close()
        else:
            self.transport.abort()
