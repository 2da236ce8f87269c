"""The service, asked over one connection that is kept."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from benchmarks.harness.release import own_state
from benchmarks.harness.server import serve
from embeddings.release.store import BundleStore

EVENTS_AT_ONCE = 1_000
_PATIENCE_SECONDS = 60


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something a household did, as the HTTP contract has it."""

    event_id: str
    type: str
    customer_id: str
    at: datetime
    channel: str = "store"
    location: str | None = None
    product_id: str | None = None
    offer_id: str | None = None
    quantity: float = 1
    value: float | None = None


class Item(msgspec.Struct, frozen=True):
    """Something recommended."""

    id: str
    kind: str
    score: float


class _Recommendation(msgspec.Struct, frozen=True):
    items: list[Item]


class _Product(msgspec.Struct, frozen=True):
    id: str


class _Similar(msgspec.Struct, frozen=True):
    items: list[_Product]


class _Model(msgspec.Struct, frozen=True):
    version: str


class _Received(msgspec.Struct, frozen=True):
    accepted: int
    rejected: list[dict[str, object]]


class Service:
    """A running service that has heard of no events yet.

    Attributes:
        bundle: of the release that it serves.
    """

    def __init__(self, connection: HTTPConnection, bundle: Path) -> None:
        self.bundle = bundle
        self._connection = connection

    def recommend(
        self,
        household: str | None,
        channel: str,
        location: str | None,
        at: datetime,
        limit: int,
        kind: str = "product",
        **options: object,
    ) -> list[str]:
        """Return the recommended ids, the best first.

        Args:
            household: who asks; None for nobody in particular.
            channel: where.
            location: the store; None for none in particular.
            at: when.
            limit: how many.
            kind: product or offer.
            options: further fields of the request.
        """
        return [item.id for item in self.items(household, channel, location, at, limit, [kind], **options)]

    def items(
        self,
        household: str | None,
        channel: str,
        location: str | None,
        at: datetime,
        limit: int,
        kinds: Sequence[str],
        **options: object,
    ) -> list[Item]:
        """Return the recommended items, the best first.

        The arguments are those of ``recommend``, but for several kinds.
        """
        context = {"channel": channel, "location": location, "at": at}
        body = {"customer_id": household, "kinds": kinds, "context": context, "limit": limit, **options}
        return msgspec.json.decode(self._post("/v1/recommend", body, 200), type=_Recommendation).items

    def similar(self, product: str, limit: int, **options: str) -> list[str]:
        """Return the ids of products that go with one, the closest first; options are further parameters."""
        path = f"/v1/products/{product}/similar?{urlencode({'limit': limit, **options})}"
        return [item.id for item in msgspec.json.decode(self._ask("GET", path, None, 200), type=_Similar).items]

    def rest(self) -> None:
        """Close the connection, which the service would do after some seconds; the next call opens another."""
        self._connection.close()

    def version(self) -> str:
        """Return the version of the release that answers."""
        return msgspec.json.decode(self._ask("GET", "/v1/model", None, 200), type=_Model).version

    def report(self, events: Sequence[Event]) -> None:
        """Report events, in this order.

        Raises:
            RuntimeError: the service knows one of them already, or refuses it.
        """
        for start in range(0, len(events), EVENTS_AT_ONCE):
            some = events[start : start + EVENTS_AT_ONCE]
            answer = msgspec.json.decode(self._post("/v1/events", {"events": some}, 202), type=_Received)
            if answer.accepted != len(some):
                raise RuntimeError(f"of {len(some)} events {answer.accepted} were new and valid: {answer.rejected[:3]}")

    def _post(self, path: str, body: Mapping[str, object], expected: int) -> bytes:
        return self._ask("POST", path, msgspec.json.encode(body), expected)

    def _ask(self, method: str, path: str, body: bytes | None, expected: int) -> bytes:
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != expected:
            raise RuntimeError(f"{path} was answered {response.status}: {answer.decode(errors='replace')}")
        return answer


@contextmanager
def fresh_service(store: Path, version: str) -> Generator[Service]:
    """Serve a release with an empty event store until the block is left, so that no task sees another's events."""
    with own_state(store, version) as own, replaying_service(own) as service:
        yield service


@contextmanager
def replaying_service(store: Path) -> Generator[Service]:
    """Serve the current release of a store until the block is left, by the clock of what it is asked."""
    with serve(store, "--clock", "replay") as served:
        connection = HTTPConnection("127.0.0.1", served.port, timeout=_PATIENCE_SECONDS)
        bundles = BundleStore(store)
        try:
            yield Service(connection, bundles.bundle(bundles.current()))
        finally:
            connection.close()
