"""Locks of files, which end with the process that holds them, however it ends."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from embeddings.errors import EventStoreUnavailable


def open_lock(path: Path, mode: int = 0o600) -> int:
    """Open a lock file without taking a lock, and create it if it is missing; closing it ends any lock on it."""
    return os.open(path, os.O_RDWR | os.O_CREAT, mode)


@contextmanager
def locked(path: Path, mode: int = 0o600) -> Generator[int]:
    """Open a lock file, and yield its descriptor; leaving the block closes it and ends any lock taken on it."""
    descriptor = open_lock(path, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_for(descriptor: int, kind: int) -> bool:
    """Take a lock if it is free, and return whether it was."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for(descriptor: int, kind: int, seconds: float, path: Path) -> None:
    """Take a lock of the event store, and wait for it at most so many seconds.

    Raises:
        EventStoreUnavailable: another process keeps it.
    """
    until = time.monotonic() + seconds
    while not try_for(descriptor, kind):
        if time.monotonic() > until:
            raise EventStoreUnavailable(
                f"another process has kept {path} locked for {seconds:.0f} s; find it with: fuser {path}, and end it"
            )
        time.sleep(0.05)
