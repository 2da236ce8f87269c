"""Requests made from what was really bought after the cut-off, where and by whom.

Each basket of the 28 held-out days becomes one recommend call at its household, store and moment. Channels are drawn
by fixed shares (the data knows tills only), some callers are made anonymous, and now and then a line that really was
bought is reported as an event.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np
import polars as pl

from benchmarks.harness.release import UNTIL
from benchmarks.quality.journey import purchase_lines

K = 10
CHANNELS = {"store": 0.7, "web": 0.1, "app": 0.1, "mailer": 0.1}
ANONYMOUS = 0.15
EVENTS = 0.05
RECOMMEND, REPORT = "/v1/recommend", "/v1/events"
_NUMBER = b"000000000000"


class Call(msgspec.Struct, frozen=True):
    """One request.

    Attributes:
        body: JSON; in an event, twelve zeros stand where the number goes that tells it from any other.
    """

    path: str
    body: bytes

    def encoded(self) -> tuple[bytes, bytes | None]:
        """Return the bytes of the HTTP request; of an event, those before and those after its number."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(self.body) + self.body
        if self.path != REPORT:
            return request, None
        before, _, after = request.partition(_NUMBER)
        return before, after


class TrafficRequest(msgspec.Struct, frozen=True):
    """The question of a recommend call, kept to check the answer."""

    customer: str | None
    channel: str
    location: str
    at: datetime


class Traffic(msgspec.Struct, frozen=True):
    """The calls in the order of time, and what the recommend calls among them ask."""

    calls: list[Call]
    asked: list[TrafficRequest]

    def recommendations(self) -> list[Call]:
        """Return the calls without the events."""
        return [call for call in self.calls if call.path == RECOMMEND]


def traffic(seed: int = 0) -> Traffic:
    """Return the calls made from every basket after the cut-off, in the order of time."""
    lines = purchase_lines().filter(pl.col("at") >= UNTIL)
    baskets = (
        lines.group_by("basket_id")
        .agg(pl.first("household_id", "store_id", "at"), pl.first("product_id"))
        .sort("at", "basket_id")
    )
    random = np.random.default_rng(seed)
    channels = random.choice(list(CHANNELS), len(baskets), p=list(CHANNELS.values()))
    anonymous_R, event_R = random.random(len(baskets)) < ANONYMOUS, random.random(len(baskets)) < _events_per_call()
    calls: list[Call] = []
    asked: list[TrafficRequest] = []
    for place, (_, household, store, at, product) in enumerate(baskets.iter_rows()):
        one = TrafficRequest(None if anonymous_R[place] else household, str(channels[place]), store, at)
        calls.append(recommend_call(one))
        asked.append(one)
        if event_R[place]:
            calls.append(_event_call(household, product, store, at))
    return Traffic(calls, asked)


def recommend_call(one: TrafficRequest, limit: int = K) -> Call:
    """Return the recommend call for a request."""
    body: dict[str, object] = {} if one.customer is None else {"customer_id": one.customer}
    body |= {
        "kinds": ["product"],
        "context": {"channel": one.channel, "location": one.location, "at": one.at},
        "limit": limit,
    }
    return Call(RECOMMEND, msgspec.json.encode(body))


def evenly(asked: Sequence[TrafficRequest], count: int) -> list[TrafficRequest]:
    """Return up to ``count`` of the requests, spread over the whole time."""
    return [asked[place] for place in np.linspace(0, len(asked) - 1, min(count, len(asked))).astype(int).tolist()]


def _events_per_call() -> float:
    """Return the events per recommend call that make events the share ``EVENTS`` of all requests."""
    return EVENTS / (1 - EVENTS)


def _event_call(household: str, product: str, store: str, at: datetime) -> Call:
    event = {
        "event_id": f"load-{_NUMBER.decode()}",
        "type": "purchase",
        "customer_id": household,
        "product_id": product,
        "at": at,
        "location": store,
        "channel": "store",
        "quantity": 1,
    }
    return Call(REPORT, msgspec.json.encode({"events": [event]}))
