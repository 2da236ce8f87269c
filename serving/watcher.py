"""Watches the store for another release, opens it aside, and publishes its view."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from embeddings.errors import CorruptBundle
from embeddings.release.store import BundleStore, Stamp
from serving.slot import ViewSlot
from serving.view import View

_log = logging.getLogger("opportune.serve")

Done = TypeVar("Done")


class Refused(NamedTuple):
    """A published version that could not be opened.

    Attributes:
        reason: why, in words that may be told to anybody.
        stamp: of its files when it was tried.
    """

    version: str
    reason: str
    stamp: Stamp


class ReleaseWatcher:
    """Takes the store's current version when it is another one than that in service.

    Attributes:
        refused: the published version that could not be opened, or None.
        unreadable: why the store cannot be read, in words for the log; None while it can.
    """

    def __init__(
        self,
        slot: ViewSlot,
        store: BundleStore,
        open_version: Callable[[str], View],
        publish: Callable[[View], Awaitable[None]],
    ) -> None:
        """Take what is watched and what is done with what is found.

        Args:
            slot: holds the view that answers.
            store: where releases are published.
            open_version: opens one; slow.
            publish: has the view of another release answer.
        """
        self.refused: Refused | None = None
        self.unreadable: str | None = None
        self._slot = slot
        self._store = store
        self._open = open_version
        self._publish = publish
        # One thread for every version: with each further one the allocator sets aside an address space of its own.
        self._thread = ThreadPoolExecutor(1, "releases")
        self._seen: Stamp | None = None

    async def watch(self, poll_seconds: float) -> None:
        """Look for another current version, forever; one that cannot be opened leaves the old one in service."""
        while True:
            await asyncio.sleep(poll_seconds)
            await self.look()

    async def look(self) -> None:
        """Take the current version if it is another one and can be opened.

        One that was refused is tried again once its files, or ``CURRENT``, have changed and then stood still from one
        look to the next.
        """
        await self._look(self._publish)

    async def join(self, version: str, begin_with: Callable[[View], Awaitable[None]]) -> bool:
        """Take the version that other workers serve, or else the current one; return whether one can be opened.

        Args:
            version: what they serve.
            begin_with: has the view of a release answer in a worker that does not answer yet.
        """
        if version == self._slot.current.version:
            return True
        await self._take(version, (), begin_with)
        if self.refused is not None:
            await self._look(begin_with)
        return self.refused is None and self.unreadable is None

    async def _look(self, publish: Callable[[View], Awaitable[None]]) -> None:
        serving = self._slot.current.version
        try:
            version = await self._aside(self._store.current)
            stamp = await self._aside(self._store.stamp, version) if version != serving else ()
        except Exception as error:  # whatever it is, the next look must come
            self._note_unreadable(str(error))
            return
        self._note_unreadable(None)
        stands, self._seen = stamp == self._seen, stamp
        if version == serving:
            self.refused = None
        elif self.refused is None or version != self.refused.version or (stands and stamp != self.refused.stamp):
            await self._take(version, stamp, publish)

    async def _take(self, version: str, stamp: Stamp, publish: Callable[[View], Awaitable[None]]) -> None:
        try:
            view = await self._aside(self._open, version)
        except Exception as error:  # files that agree with their hashes can still be of any wrong shape
            self.refused = Refused(version, _told(error), stamp)
            _log.error("refused version %s, still serving %s: %s", version, self._slot.current.version, error)
            return
        self.refused = None
        try:
            await publish(view)
        except Exception as error:  # one release that cannot take the catalogue's changes must not end every worker
            self.refused = Refused(version, _told(error), stamp)
            _log.exception("version %s cannot be published, still serving %s", version, self._slot.current.version)
            view.close()
            return
        _log.info("now serving %s", version)

    def _aside(self, work: Callable[..., Done], *arguments: str) -> "asyncio.Future[Done]":
        """Run slow work in a thread, while the event loop goes on; return its future."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _note_unreadable(self, problem: str | None) -> None:
        """Log once that the store cannot be read, or can be again."""
        if problem != self.unreadable:
            if problem is None:
                _log.info("the store can be read again")
            else:
                _log.error("cannot read the store, still serving %s: %s", self._slot.current.version, problem)
        self.unreadable = problem


def _told(error: Exception) -> str:
    """Return why a version was refused, without what only the log should say: paths, and words of other libraries."""
    if isinstance(error, CorruptBundle):
        return f"{error.path.name}: {error.problem}"
    return "it could not be opened; the log says why"
