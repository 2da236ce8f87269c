"""Counters that all workers share, to tell each other that they have stored events."""

import mmap

SLOTS = 2**16
"""Customers share a slot by the hash of their id; a slot more often changed than its customer costs a read, no more."""

_COUNTER_BYTES = 8


class Invalidations:
    """Counters in memory that forked workers share: one a worker for every slot of customers and for redemptions.

    Only a worker itself writes its counters, and an aligned number of 64 bits is written at once: nothing is locked
    and nothing is lost. A count is added after a commit and before its answer, so whoever asks after that answer,
    in whatever worker, finds the count. The hash is Python's own, which differs from start to start; forked workers
    inherit it.

    Args:
        workers: how many processes will write.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._own = 0
        self._counters = memoryview(mmap.mmap(-1, (SLOTS + 1) * workers * _COUNTER_BYTES)).cast("Q")

    def take(self, worker: int) -> None:
        """Set which worker this process is, from 0 up; no other process may have the same number."""
        self._own = worker

    def add(self, customer_id: str) -> None:
        """Have the other workers read a customer's history again: its events have been committed."""
        self._counters[hash(customer_id) % SLOTS * self._workers + self._own] += 1

    def by_others(self, customer_id: str) -> int:
        """Return how often the other workers have stored events of this customer or another of the same slot."""
        if self._workers == 1:
            return 0
        start = hash(customer_id) % SLOTS * self._workers
        return sum(self._counters[start : start + self._workers]) - self._counters[start + self._own]

    def add_redemptions(self) -> None:
        """Have all workers, this one too, count redemptions again: some have been committed."""
        self._counters[SLOTS * self._workers + self._own] += 1

    @property
    def redemptions(self) -> int:
        """Return how often all workers together have stored redemptions."""
        return sum(self._counters[SLOTS * self._workers :])
