"""Real sockets on the loop of the test, and an application that tells what reached it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from prometheus_client import CollectorRegistry, Counter
from uvicorn.server import ServerState

from serving.admission import Admission
from serving.api.post import LARGEST_BODY
from serving.connections import Connection, Connections
from serving.settings import Limits

PATIENCE_SECONDS = 30
CALM = Limits(connections=50)
HASTY = Limits(head_seconds=0.2, body_seconds=0.2, answer_seconds=0.2, idle_seconds=0.2)
GET = b"GET /v1/model HTTP/1.1\r\nHost: test\r\n\r\n"


class Asgi:
    """Answers with how many bytes a request had; on /hang not before it is released."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.headers: list[Any] = []
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        declared = int(dict(scope["headers"]).get(b"content-length", 0))
        length, more = (declared if declared > LARGEST_BODY else 0), True  # too large: refused without being read
        while more and length <= LARGEST_BODY:
            message = await receive()
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.headers = list(scope["headers"])
        if scope["path"] == "/v1/hang":
            await self.released.wait()
        answer = str(length).encode()
        status = 413 if length > LARGEST_BODY else 200
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Service:
    """What a test talks to."""

    def __init__(self, limits: Limits, wait_seconds: float) -> None:
        self.app = Asgi()
        self.refused = Counter("refused", "", ["why"], registry=CollectorRegistry())
        self.shared = Connections(limits, Admission(wait_seconds, lambda: 0), self.refused)
        self.state = ServerState()
        self.config = uvicorn.Config(self.app, lifespan="off", log_config=None, ws="none")  # pyright: ignore[reportArgumentType]
        self.port = 0

    async def open(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def said(self, *sent: bytes) -> bytes:
        """All that is answered to one connection until it is closed."""
        reader, writer = await self.open()
        for part in sent:
            writer.write(part)
            await writer.drain()
        received = await reader.read()
        writer.close()
        return received

    def count(self, why: str) -> float:
        return self.refused.labels(why)._value.get()  # pyright: ignore[reportPrivateUsage]

    async def until(self, look: Callable[[], bool]) -> None:
        while not look():  # noqa: ASYNC110 - there is nothing that could tell
            await asyncio.sleep(0.005)


def serving(scenario: Callable[[Service], Awaitable[None]], limits: Limits = CALM, wait_seconds: float = 1.0) -> None:
    async def run() -> None:
        service = Service(limits, wait_seconds)
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            return Connection(service.shared, config=service.config, server_state=service.state, app_state={})

        server = await loop.create_server(connect, "127.0.0.1", 0)
        service.port = server.sockets[0].getsockname()[1]
        watching = asyncio.create_task(service.shared.watch(service.state.connections))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await scenario(service)
        watching.cancel()
        service.app.released.set()
        server.close()
        for one in list(service.state.connections):
            one.shutdown()
        await asyncio.gather(*service.state.tasks)

    asyncio.run(run())


def post(length: int, path: str = "/v1/recommend", more: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n".encode() + more + b"\r\n"


def full(_begin: Callable[[], None], turn_away: Callable[[], None]) -> None:
    """Let nobody in."""
    turn_away()


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("begun", "told"),
    [
        (b"", []),
        (b"\r\n", []),
        (b"GET /v1/model HT", [408]),
        (b"GET /v1/model HTTP/1.1\r\nA: ", [408]),
        (post(10) + b"abc", [408]),
        (post(10, more=b"Expect: 100-continue\r\n"), [100, 408]),
        (b"POST /v1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", [408]),
        (GET, [200]),
        (GET + b"GET /v1", [200, 408]),
        (post(2 * LARGEST_BODY) + b"abc", [413]),
    ],
)
def test_whoever_goes_silent_is_cut_off(begun: bytes, told: list[int]):
    async def scenario(service: Service) -> None:
        assert statuses(await service.said(begun)) == told

    serving(scenario, HASTY)


@pytest.mark.parametrize("begun", [b"", b"GET /v1/model HTTP/1.1\r\nA: ", post(10_000), GET])
def test_whoever_trickles_is_cut_off(begun: bytes):
    async def scenario(service: Service) -> None:
        reader, writer = await service.open(begun)
        reading = asyncio.create_task(reader.read())
        while not reading.done():
            writer.write(b"\r\n"[:1] if not begun else b"a")
            await asyncio.sleep(0.02)
        with suppress(ConnectionError):  # what was not read may take the answer with it
            assert set(statuses(await reading)) <= {200, 400, 408}
        writer.close()

    serving(scenario, HASTY)


def test_a_request_reaches_the_application_only_once_it_is_whole():
    async def scenario(service: Service) -> None:
        halves = [await service.open(post(4) + b"ab") for _ in range(40)]
        assert statuses(await service.said(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) == [200]
        assert service.app.paths == ["/v1/model"]
        for reader, writer in halves:
            writer.write(b"cd")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert len(service.app.paths) == 41
        for _, writer in halves:
            writer.close()

    serving(scenario, wait_seconds=0.0)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"GET /" + b"a" * 10**6, "url"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 10**6, "line"),
        (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 10**6, "lines"),
        (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 101 + b"\r\n", "lines, whole"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 2**15 + b"\r\n\r\n", "line, whole"),
        (b"\r\n" * 10**6, "nothing"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 10**6, "chunk extension"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 10**6, "trailers"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: " + b"b" * 10**6, "trailer"),
    ],
)
@pytest.mark.parametrize("size", [10**9, 1_000])
def test_a_head_without_end_is_refused_while_it_is_small(head: bytes, kind: str, size: int):
    async def scenario(service: Service) -> None:
        reader, writer = await service.open()
        reading = asyncio.create_task(reader.read())
        for start in range(0, len(head), size):
            if reading.done():
                break
            writer.write(head[start : start + size])
            await asyncio.sleep(0)
        with suppress(ConnectionError):
            assert statuses(await reading) in ([431], []), kind  # what was not read may take the answer with it
        writer.close()
        assert service.count("head") == 1
        assert service.app.paths == []

    serving(scenario)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"hello\r\n\r\n",
        post(3, more=b"Content-Length: 4\r\n") + b"abc",
        post(3, more=b"Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n",
        post(-1),
        b"GET http://test HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT test:80 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
    ],
)
def test_what_is_no_request_is_refused(request_: bytes, caplog: pytest.LogCaptureFixture):
    async def scenario(service: Service) -> None:
        received = await service.said(request_)
        assert statuses(received) == [400]
        assert json.loads(received.partition(b"\r\n\r\n")[2])["type"] == "urn:opportune:problem:bad-request"
        assert service.app.paths == []

    serving(scenario)
    assert not caplog.records


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET http://test/v1/model HTTP/1.1\r\nConnection: close\r\n\r\n", b"0"),
        (b"GET /v1/model HTTP/1.0\r\n\r\n", b"0"),
        (b"GET /v1/model HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"0"),
        (post(3, more=b"Connection: close\r\n") + b"abc", b"3"),
        (b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", b"3"),
    ],
)
def test_every_form_of_a_request_is_answered(request_: bytes, answer: bytes):
    async def scenario(service: Service) -> None:
        received = await service.said(request_)
        assert statuses(received) == [200]
        assert received.endswith(b"\r\n\r\n" + answer)

    serving(scenario)


@pytest.mark.parametrize("split", [10**9, 1])
def test_an_upgrade_is_ignored(split: int):
    async def scenario(service: Service) -> None:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        reader, writer = await service.open()
        sent = post(3, more=upgrade) + b"abc" + GET
        for start in range(0, len(sent), split):
            writer.write(sent[start : start + split])
            await writer.drain()
        received = b""
        while len(statuses(received)) < 2 or not received.endswith(b"\r\n\r\n0"):
            received += await reader.read(1_000)
        assert statuses(received) == [200, 200]
        assert b"\r\n\r\n3HTTP/1.1" in received
        writer.close()

    serving(scenario)


def test_trailers_are_no_headers():
    async def scenario(service: Service) -> None:
        chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        assert statuses(await service.said(chunked + b"3;a=b\r\nabc\r\n0\r\nX-Admin: yes\r\n\r\n")) == [200]
        assert {name for name, _ in service.app.headers} == {b"transfer-encoding", b"connection"}

    serving(scenario)


def test_pipelined_requests_are_answered_in_order_and_not_without_end():
    async def scenario(service: Service) -> None:
        reader, writer = await service.open(b"".join(post(n) + b"a" * n for n in range(12)))
        for n in range(12):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(str(n))) == str(n).encode()
        writer.close()
        assert statuses(await service.said(GET.replace(b"model", b"hang") + GET * 1_000)) == []
        assert len(service.app.paths) == 13

    serving(scenario)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_before_it_is_here(chunked: bool):
    async def scenario(service: Service) -> None:
        begun = post(LARGEST_BODY + 1)
        if chunked:
            begun = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + b"a" * (LARGEST_BODY + 1)
        reader, writer = await service.open(begun if chunked else begun + b"a" * (LARGEST_BODY + 1))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        writer.close()

    serving(scenario)


def test_beyond_the_most_connections_the_longest_waiting_gives_way():
    async def scenario(service: Service) -> None:
        hanging, writer = await service.open(GET.replace(b"model", b"hang"))
        await service.until(lambda: service.app.paths == ["/v1/hang"])
        opened = [await service.open(post(5)) for _ in range(49)]
        await service.until(lambda: len(service.state.connections) == 50)
        newest, newest_writer = await service.open(GET)
        assert (await newest.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await opened[0][0].read() == b""
        service.app.released.set()
        assert (await hanging.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert service.count("connections") == 1
        for one in (writer, newest_writer, *(one for _, one in opened)):
            one.close()

    serving(scenario)


def test_where_all_connections_are_being_answered_one_more_is_closed():
    async def scenario(service: Service) -> None:
        hanging = [await service.open(GET.replace(b"model", b"hang")) for _ in range(3)]
        await service.until(lambda: len(service.app.paths) == 3)
        reader, writer = await service.open()
        assert await reader.read() == b""
        service.app.released.set()
        for one, its_writer in hanging:
            assert (await one.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            its_writer.close()
        writer.close()

    serving(scenario, Limits(connections=3))


@pytest.mark.parametrize("path", ["/v1/recommend", "//v1/recommend", "/V1/recommend", "/%2Fv1/x", "/v1/../v1/x", "/x"])
def test_whatever_may_be_routed_is_refused_under_overload_and_the_connection_goes_on(path: str):
    async def scenario(service: Service) -> None:
        service.shared.admission.enter = full  # type: ignore[method-assign]
        reader, writer = await service.open()
        for _ in range(2):
            writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert statuses(head) == [503]
            assert b"\r\nretry-after: 1\r\n" in head
            (length,) = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(length)
        assert service.app.paths == []
        assert service.count("overload") == 2
        writer.close()

    serving(scenario)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_and_metrics_are_always_answered(path: str):
    async def scenario(service: Service) -> None:
        service.shared.admission.enter = full  # type: ignore[method-assign]
        assert statuses(await service.said(f"GET {path} HTTP/1.0\r\n\r\n".encode())) == [200]
        for method, has_body in (("GET", True), ("HEAD", False)):
            received = await service.said(f"{method} /v1/model HTTP/1.0\r\n\r\n".encode())
            assert statuses(received) == [503]
            assert received.endswith(b"}") == has_body
        assert service.count("overload") == 2

    serving(scenario)


def test_whoever_does_not_read_its_answers_is_cut_off():
    async def scenario(service: Service) -> None:
        service.shared.admission.enter = full  # type: ignore[method-assign]
        _, writer = await service.open()
        transport: Any = writer.transport
        transport.pause_reading()
        with suppress(ConnectionError):
            while not transport.is_closing():
                writer.write(GET * 1_000)
                await writer.drain()
        writer.close()

    serving(scenario)


def test_what_comes_of_a_body_behind_a_request_under_way_is_counted_once():
    async def scenario(service: Service) -> None:
        for asked in (1, 2, 3):
            service.app.released.clear()
            hanging = GET.replace(b"model", b"hang")
            reader, writer = await service.open(hanging + post(60_000) + b"a" * 50_000)
            await service.until(lambda asked=asked: service.app.paths.count("/v1/hang") == asked)
            service.app.released.set()
            await service.until(lambda: service.shared.body_bytes == 50_000)
            writer.write(b"a" * 10_000)
            received = b""
            while not received.endswith(b"\r\n\r\n60000"):
                received += await reader.read(1_000)
            assert statuses(received) == [200, 200]
            assert service.shared.body_bytes == 0
            writer.close()

    serving(scenario)


def test_bodies_that_are_not_whole_take_no_more_than_they_may_together():
    async def scenario(service: Service) -> None:
        begun = [await service.open(post(60_000) + b"a" * 50_000) for _ in range(5)]
        cut = [await reader.read() for reader, _ in begun[:3]]
        assert cut == [b""] * 3
        assert service.shared.body_bytes <= 100_000
        assert statuses(await service.said(post(5, more=b"Connection: close\r\n") + b"abcde")) == [200]
        for reader, writer in begun[3:]:
            writer.write(b"a" * 10_000)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert service.shared.body_bytes == 0
        assert service.count("bodies") == 3
        for _, writer in begun:
            writer.close()

    serving(scenario, Limits(bodies_bytes=110_000))
