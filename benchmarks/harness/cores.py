"""Choice of cores: one for the server and one for the load, so that neither takes the other's time."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple


class Cores(NamedTuple):
    """One core for the server and everything it starts, another for the generator; None if unavailable."""

    server: int | None
    generator: int | None


def choose() -> Cores:
    """Return two of the cores this process may use, or none if it has fewer or the system cannot pin."""
    if not hasattr(os, "sched_setaffinity"):
        return Cores(None, None)
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1]) if len(allowed) > 1 else Cores(None, None)


@contextmanager
def pinned(core: int | None) -> Generator[None]:
    """Run every process started inside the block on this core, with its children; None changes nothing."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
