"""A stand-in for the service that the quality suite asks."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.quality.service import Event, Service


class StandIn(Service):
    """Remembers what it was asked and told.

    Args:
        answer: to a household, given all events that were reported so far.
    """

    def __init__(self, answer: Callable[[str, Sequence[Event]], list[str]]) -> None:
        self.bundle = Path("no-bundle")
        self._answer = answer
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.events: list[Event] = []

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
        context = {"channel": channel, "location": location, "at": at}
        self.calls.append(("recommend", {"household": household, "limit": limit, "kind": kind, **context, **options}))
        return self._answer(str(options.get("customer_id", household)), self.events)[:limit]

    def report(self, events: Sequence[Event]) -> None:
        self.calls.append(("report", {"events": list(events)}))
        self.events += events
