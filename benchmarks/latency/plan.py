"""The plan that a load generator carries out."""

from collections.abc import Iterator
from itertools import cycle

import msgspec

from benchmarks.latency.traffic import Call


class Stage(msgspec.Struct, frozen=True):
    """A span of load.

    Attributes:
        connections: at most this many requests are under way.
        rate: requests a second, or None for a closed loop: every connection sends as soon as it was answered.
    """

    seconds: float
    connections: int
    rate: float | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All calls and stages of one run of a generator.

    Attributes:
        calls: sent in this order, again and again.
        stages: one after the other; an open stage starts on the dot, with the one before still being answered.
        timeout_seconds: a request not answered this long after it was due is given up.
        poisson: exponential gaps between requests that are due, else equal ones.
        first_event: the number of the first event; numbers count up from there.
    """

    port: int
    calls: list[Call]
    stages: list[Stage]
    timeout_seconds: float = 5.0
    poisson: bool = True
    seed: int = 0
    first_event: int = 0


def requests(plan: Plan) -> Iterator[tuple[bytes, bool]]:
    """Yield encoded requests without end, and whether each is an event; every event has a number of its own."""
    number = plan.first_event
    for head, tail in cycle([call.encoded() for call in plan.calls]):
        if tail is None:
            yield head, False
        else:
            yield head + b"%012d" % number + tail, True
            number += 1
