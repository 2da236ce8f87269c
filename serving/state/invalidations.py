"""Counters by which a worker knows that others have stored events: workers of this server, and other servers."""

import mmap
from array import array
from collections.abc import Iterable

SLOTS = 2**16
"""Customers share a slot by the hash of their id; a slot more often changed than its customer costs a read, no more."""

_COUNTER_BYTES = 8


class Invalidations:
    """Counters in memory that forked workers share: one a worker for every slot of customers and for redemptions.

    Only a worker itself writes its counters, and an aligned number of 64 bits is written at once: nothing is locked
    and nothing is lost. A count is added after a commit and before its answer, so whoever asks after that answer,
    in whatever worker, finds the count. The hash is Python's own, which differs from start to start; forked workers
    inherit it.

    What other servers have stored every worker finds out for itself (``serving/state/feed.py``), and counts in memory
    of its own.

    Attributes:
        losses: how often what other servers have stored was not followed for a while, and so may be anything.

    Args:
        workers: how many processes will write.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._own = 0
        self._counters = memoryview(mmap.mmap(-1, (SLOTS + 1) * workers * _COUNTER_BYTES)).cast("Q")
        self._elsewhere = array("Q", bytes((SLOTS + 1) * _COUNTER_BYTES))
        self.losses = 0

    def take(self, worker: int) -> None:
        """Set which worker this process is, from 0 up; no other process may have the same number."""
        self._own = worker

    def add(self, customer_id: str) -> None:
        """Have the other workers read a customer's history again: its events have been committed."""
        self._counters[hash(customer_id) % SLOTS * self._workers + self._own] += 1

    def add_elsewhere(self, customer_ids: Iterable[str], redeemed: bool) -> None:
        """Have this worker read customers' histories again, and count redemptions: another server has stored events."""
        for customer_id in customer_ids:
            self._elsewhere[hash(customer_id) % SLOTS] += 1
        self._elsewhere[SLOTS] += redeemed

    def lose(self) -> None:
        """Have this worker read everything again."""
        self.losses += 1

    def by_others(self, customer_id: str) -> int:
        """Return how often others have stored events of this customer or another of the same slot, or of anybody."""
        slot = hash(customer_id) % SLOTS
        elsewhere = self._elsewhere[slot] + self.losses
        if self._workers == 1:
            return elsewhere
        start = slot * self._workers
        return sum(self._counters[start : start + self._workers]) - self._counters[start + self._own] + elsewhere

    def add_redemptions(self) -> None:
        """Have all workers, this one too, count redemptions again: some have been committed."""
        self._counters[SLOTS * self._workers + self._own] += 1

    @property
    def redemptions(self) -> int:
        """Return how often all workers together, and other servers, have stored redemptions."""
        return sum(self._counters[SLOTS * self._workers :]) + self._elsewhere[SLOTS] + self.losses
