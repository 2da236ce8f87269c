"""Admission of requests: under overload a request is refused before any work is done for it.

A request is let in by how long it would wait, not by how many others wait. After a pause of the process, all requests
that have come meanwhile show at once, and are answered soon enough; under overload the same number would wait for ever.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

_EACH_TURN = 16
"""How many requests begin in one turn of the event loop."""
_ENOUGH = 32
"""With so many requests waiting to be computed no more of them begin."""
_USUAL_SECONDS = 0.0005
"""What a request is taken to cost until it has been measured."""
_MEASURED, _WEIGHT, _MOST_CHANGE = 32, 0.5, 4.0
"""Over how many requests a cost is measured, how much the newest measurement counts, and how far it is believed."""
_FORGOTTEN_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 0.001


class _Waiting(NamedTuple):
    """A request that waits for its turn, until a moment."""

    begin: Callable[[], None]
    turn_away: Callable[[], None]
    until: float


class Admission:
    """Begins requests in the order in which they came, and turns away those that wait too long or would.

    What a request costs is measured while others wait: it is the time from one that begins to the next. A pause of
    the whole process falls into single measurements, which are not believed in full.

    Args:
        wait_seconds: how long a request may wait.
        computing: how many of those that have begun wait to be computed.
        now: a clock in seconds, which never goes back.
    """

    def __init__(
        self, wait_seconds: float, computing: Callable[[], int], now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._wait_seconds = wait_seconds
        self._computing = computing
        self._now = now
        self._queue: deque[_Waiting] = deque()
        self._begun = 0
        self._scheduled = False
        self._each_seconds, self._known = _USUAL_SECONDS, 0.0
        self._since, self._count = 0.0, 0

    def enter(self, begin: Callable[[], None], turn_away: Callable[[], None]) -> None:
        """Begin a request now or when its turn comes, or turn it away; exactly one of the two is called, once."""
        if not self._queue and self._begun < _EACH_TURN and self._computing() < _ENOUGH:
            self._begun += 1
            self._schedule()
            begin()
            return
        now = self._now()
        if not self._queue:
            self._since, self._count = now, 0
            if now - self._known > _FORGOTTEN_SECONDS:
                self._each_seconds = _USUAL_SECONDS
        if (len(self._queue) + self._computing()) * self._each_seconds > self._wait_seconds:
            turn_away()
            return
        self._queue.append(_Waiting(begin, turn_away, now + self._wait_seconds))
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._begun = 0
        now = self._now()
        while self._queue and self._begun < _EACH_TURN and self._computing() < _ENOUGH:
            one = self._queue.popleft()
            if now > one.until:
                one.turn_away()
            else:
                self._begun += 1
                one.begin()
        self._count += self._begun
        if self._queue and self._count >= _MEASURED:
            self._measure(now)
        if self._begun:
            self._schedule()
        elif self._queue:  # what has begun is being computed: on this loop, which comes back when it is, or elsewhere
            self._scheduled = True
            asyncio.get_running_loop().call_later(_LOOK_AGAIN_SECONDS, self._turn)

    def _measure(self, now: float) -> None:
        measured, known = (now - self._since) / self._count, self._each_seconds
        believed = min(max(measured, known / _MOST_CHANGE), known * _MOST_CHANGE)
        self._each_seconds += _WEIGHT * (believed - known)
        self._known = self._since = now
        self._count = 0
