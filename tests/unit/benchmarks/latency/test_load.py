"""The load generator: what is sent, from when latency counts, and that nothing is lost from the count."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.latency.load import Load
from benchmarks.latency.plan import Plan, Stage
from benchmarks.latency.samples import BROKEN, TIMED_OUT, Samples
from benchmarks.latency.traffic import RECOMMEND, REPORT, Call

ASK = Call(RECOMMEND, b'{"context":{"channel":"web"}}')
EVENT = Call(REPORT, b'{"events":[{"event_id":"load-000000000000"}]}')

Answering = Callable[[bytes, int], Coroutine[Any, Any, bytes | None]]


def response(status: int = 200, body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


async def always(_request: bytes, _number: int) -> bytes | None:
    return response()


def generate(answering: Answering, *stages: Stage, calls: list[Call] | None = None, **plan: Any) -> Samples:
    """Run a plan against a server in this process, which answers request by request; None hangs up."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                count += 1
                answer = await answering(head + body, count)
                if answer is None:
                    return
                for start in range(0, len(answer), 17):  # in many pieces
                    writer.write(answer[start : start + 17])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def both() -> Samples:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        samples = await Load(Plan(port=port, calls=calls or [ASK], stages=list(stages), **plan)).run()
        server.close()
        return samples

    return asyncio.run(both())


def test_an_open_loop_sends_as_many_as_its_rate_says() -> None:
    samples = generate(always, Stage(0.5, 8, rate=200.0), Stage(0.25, 8, rate=400.0))
    assert np.bincount(samples.stage_R).tolist() == [100, 100]
    assert samples.statuses() == {"200": 200}
    assert (samples.sent_R >= samples.due_R).all()
    assert (samples.done_R >= samples.sent_R).all()


def test_gaps_are_equal_or_drawn_by_the_seed() -> None:
    even = np.sort(generate(always, Stage(0.2, 8, rate=100.0), poisson=False).due_R)
    assert set(np.diff(even).tolist()) == {10_000_000}
    gaps = [
        np.diff(np.sort(generate(always, Stage(0.2, 8, rate=100.0), seed=seed).due_R)).tolist() for seed in (1, 1, 2)
    ]
    assert gaps[0] == gaps[1] != gaps[2]
    assert len(set(gaps[0])) > 1


def test_a_stalled_server_is_charged_for_every_request_that_had_to_wait() -> None:
    """One connection, and the first answer comes only after the last request was due: no request leaves on time."""

    async def stalls(_request: bytes, number: int) -> bytes | None:
        if number == 1:
            await asyncio.sleep(0.3)
        return response()

    samples = generate(stalls, Stage(0.2, 1, rate=100.0), poisson=False)
    assert samples.statuses() == {"200": 20}
    order = np.argsort(samples.due_R)
    due_R, sent_R, done_R = samples.due_R[order], samples.sent_R[order], samples.done_R[order]
    assert (sent_R[1:] >= done_R[0]).all(), "one at a time"
    assert (sent_R[1:] > due_R[1:]).all()
    # By construction: with latency counted from the sending, these would all be the time of one quick answer.
    waited_R = done_R[0] - due_R[1:]
    assert ((done_R - due_R)[1:] >= waited_R).all()
    assert samples.latencies().p50 >= np.median(waited_R) / 1e6


def test_a_closed_loop_has_no_more_under_way_than_connections() -> None:
    under_way, most = 0, 0

    async def counting(_request: bytes, _number: int) -> bytes | None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002)
        under_way -= 1
        return response()

    samples = generate(counting, Stage(0.2, 3), Stage(0.1, 2))
    assert most == 3
    assert samples.errors() == 0
    assert set(samples.stage_R.tolist()) == {0, 1}


def test_statuses_are_counted_as_they_are() -> None:
    async def every_other(_request: bytes, number: int) -> bytes | None:
        return response(503 if number % 2 else 200)

    samples = generate(every_other, Stage(0.2, 1, rate=100.0))
    assert samples.statuses() == {"200": 10, "503": 10}
    assert samples.errors() == 10
    assert int(samples.refused.sum()) == 10


def test_a_broken_connection_is_an_error_and_is_replaced() -> None:
    async def hangs_up(_request: bytes, number: int) -> bytes | None:
        return None if number == 5 else response()

    samples = generate(hangs_up, Stage(0.3, 1, rate=50.0))
    assert samples.statuses() == {"broken": 1, "200": 14}
    assert (samples.status_R == BROKEN).sum() == 1


def test_what_is_never_answered_is_given_up_and_what_waited_behind_it_too() -> None:
    async def never(_request: bytes, _number: int) -> bytes | None:
        await asyncio.sleep(30)
        return None

    samples = generate(never, Stage(0.1, 1, rate=100.0), timeout_seconds=0.2)
    assert samples.statuses() == {"timed out": 10}
    assert (samples.status_R == TIMED_OUT).all()


def test_every_event_has_a_number_of_its_own() -> None:
    seen: list[str] = []

    async def noting(request: bytes, _number: int) -> bytes | None:
        body = request.partition(b"\r\n\r\n")[2]
        if request.startswith(b"POST /v1/events"):
            seen.append(msgspec.json.decode(body)["events"][0]["event_id"])
        return response(202)

    samples = generate(noting, Stage(0.2, 1, rate=100.0), calls=[ASK, EVENT], first_event=41)
    assert seen == [f"load-{number:012d}" for number in range(41, 51)]
    assert int(samples.event_R.sum()) == 10


@pytest.mark.parametrize(("errors", "expected"), [([], 0.0), ([0], 0.1), ([0, 3], 0.4)])
def test_recovery_ends_where_half_a_second_of_normal_service_begins(errors: list[int], expected: float) -> None:
    due_R = np.arange(10, dtype=np.int64) * 100_000_000
    status_R = np.full(10, 200)
    status_R[errors] = 503
    nothing_R = np.zeros(10, np.int64)
    samples = Samples(nothing_R, due_R, due_R, due_R + 1_000_000, status_R, nothing_R)
    assert samples.recovery_seconds(0, usual_ms=2.0) == pytest.approx(expected)
    assert samples.recovery_seconds(0, usual_ms=0.5) is None


def test_percentiles_are_those_of_the_recorded_latencies() -> None:
    due_R = np.zeros(1000, np.int64)
    done_R = np.arange(1, 1001, dtype=np.int64) * 1_000_000
    latencies = Samples(due_R, due_R, due_R, done_R, np.full(1000, 200), due_R).latencies()
    expected = (500, 900, 990, 999, 1000)
    found = (latencies.p50, latencies.p90, latencies.p99, latencies.p999, latencies.longest)
    assert found == pytest.approx(expected, rel=2e-3)
    assert all(one <= other for one, other in pairwise(found))
