"""The clock of the service, which tells the moment that counts as now."""

import time
from datetime import datetime

from embeddings.catalogue.context import seconds_of
from embeddings.errors import InvalidInput
from serving.settings import ClockKind

AHEAD_SECONDS = 86_400
"""How far ahead of the machine's time an event may lie, for clocks that disagree."""


class Clock:
    """The machine's time, or for replaying history the newest moment seen so far.

    Args:
        kind: ``wall`` or ``replay``.
        start: where a replay begins, in seconds since 1970 UTC: the data cut-off of the model.
    """

    def __init__(self, kind: ClockKind, start: int) -> None:
        self._replayed = start if kind == "replay" else None

    def now(self) -> int:
        """Return the time in seconds since 1970 UTC."""
        return int(time.time()) if self._replayed is None else self._replayed

    def moment(self, at: datetime | None, *, moves: bool = True) -> int:
        """Return the moment of a request: its own, or now if it names none; a replayed clock moves on to it."""
        if at is None:
            return self.now()
        moment = seconds_of(at)
        if moves and self._replayed is not None:
            self._replayed = max(self._replayed, moment)
        return moment

    def check(self, field: str, at: datetime) -> None:
        """Raise InvalidInput if an event lies ahead of the machine's time by more than a day.

        It also raises for the first and the last year that can be written: in UTC the moment may lie outside of them,
        and to PostgreSQL their ends mean infinity.
        """
        if not 1 < at.year < 9999:
            raise InvalidInput(field, f"expected a moment in the years 2 to 9998, got {at.isoformat()}")
        if self._replayed is None and at.timestamp() > time.time() + AHEAD_SECONDS:
            raise InvalidInput(field, f"expected a moment not more than a day ahead of now, got {at.isoformat()}")
