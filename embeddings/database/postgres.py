"""The PostgreSQL to connect to: one that a URL names, or one embedded beside the store."""

import fcntl
import logging
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from embeddings.database.embedded import Home, prepare, write_access
from embeddings.database.keeper import Keeper
from embeddings.database.programs import WITHOUT
from embeddings.errors import EventStoreUnavailable
from embeddings.locks import locked, try_for, wait_for

_log = logging.getLogger("opportune.serve")

_LEAVING_SECONDS = 15.0
"""How long the last server of a store may take to stop its PostgreSQL."""


class Database(NamedTuple):
    """A PostgreSQL to connect to.

    Attributes:
        url: for this process and its forks.
        home: of an embedded one, which has to be kept running; None for one that somebody else looks after.
    """

    url: str
    home: Home | None


@contextmanager
def database(url: str | None, store: Path) -> Generator[Database]:
    """Yield a running PostgreSQL; an embedded one is started under ``store/state`` and stopped afterwards.

    Several servers on one machine may share the embedded one: the last to leave stops it.

    Raises:
        EventStoreUnavailable: the embedded one did not start.
    """
    if url is not None:
        yield Database(url, None)
        return
    state = store.absolute() / "state"
    with ExitStack() as stack:
        try:
            home = stack.enter_context(_embedded(state))
        except OSError as error:
            raise EventStoreUnavailable(
                f"the embedded PostgreSQL cannot be kept in {state}: {error}; make the store writable, {WITHOUT}"
            ) from error
        _log.info("embedded PostgreSQL in %s", home.folder)
        yield Database(home.url, home)


@contextmanager
def _embedded(state: Path) -> Generator[Home]:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)  # made by an earlier version, or under a wider umask
    users = state / "users.lock"
    with locked(users) as lock:
        wait_for(lock, fcntl.LOCK_SH, _LEAVING_SECONDS, users)
        home = prepare(state)
        keeper = Keeper(home)
        try:
            if write_access(home):
                keeper.reload()
            keeper.wait()
            keeper.rest()  # for a keeper beside the requests to take over
            yield home
        finally:
            if try_for(lock, fcntl.LOCK_EX):  # nobody else uses it
                keeper.stop()
            keeper.close()
            os.close(home.descriptor)
