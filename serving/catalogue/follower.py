"""Follows the change log: brings what was changed in the database into the view that answers."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from msgspec.structs import replace

from embeddings.catalogue.changes import Change, Kind, OfferState, PlacementState, PromotionState, kind_of
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.snapshot import apply
from embeddings.database.changelog import NOTIFICATION, Changed, changed, last
from embeddings.database.connection import Connection, connected
from embeddings.errors import EventStoreUnavailable, InvalidInput, OpportuneError
from serving.slot import ViewSlot
from serving.view import View

_log = logging.getLogger("opportune.serve")

_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 2.0
"""How long PostgreSQL may take to answer before it counts as silent."""
_AT_ONCE = 2_000
"""Changes brought into one view, at most: a part of a second's work, after which the next ones are seen."""
_LATE_SECONDS = 2.0
"""How long it may not be known what was changed before answers are called degraded."""


class CatalogueFollower:
    """Publishes a view with each change of the catalogue soon after it was committed, and keeps releases up to date.

    One in every serving process. What it works out, it works out in a thread. A new release is published with all the
    changes that the one before it had.

    Attributes:
        refused: how many changes could not be brought into the view; the log names them.

    Args:
        slot: holds the view that answers.
        url: of PostgreSQL.
    """

    def __init__(self, slot: ViewSlot, url: str) -> None:
        self.refused = 0
        self._slot = slot
        self._url = url
        self._told = asyncio.Event()
        self._publishing = asyncio.Lock()
        self._current_at = time.monotonic()
        self._silent = False

    @property
    def lag_seconds(self) -> float:
        """Return how long ago it was last known that the view has every change."""
        return time.monotonic() - self._current_at

    @property
    def is_late(self) -> bool:
        """Return whether changes may be missing that are older than changes may be."""
        return self.lag_seconds > _LATE_SECONDS

    async def follow(self) -> None:
        """Bring changes into the view as they are committed, until cancelled."""
        while True:
            try:
                async with connected(self._url, refuses="to be followed") as connection:
                    await connection.add_listener(NOTIFICATION, self._tell)
                    while True:
                        await self._bring_in(connection)
                        self._note_silent(None)
                        # A notification is lost while the connection is: so it looks now and then all the same.
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._told.wait(), _POLL_SECONDS)
                        self._told.clear()
            except OpportuneError as error:
                self._note_silent(error)
            await asyncio.sleep(_POLL_SECONDS)

    async def catch_up(self) -> None:
        """Bring all changes into the view that answers; where PostgreSQL is silent, leave it as it is."""
        try:
            async with connected(self._url, refuses="to be followed") as connection:
                await self._bring_in(connection)
        except OpportuneError as error:
            self._note_silent(error)

    async def publish(self, view: View) -> None:
        """Publish the view of another release once it has every change; wait for PostgreSQL if it is silent.

        The release before serves meanwhile: a new one without the changes would show what was withdrawn.
        """
        while True:
            try:
                async with connected(self._url, refuses="to be followed") as connection:
                    fresh = await self._brought(connection, view)
                    async with self._publishing:
                        self._slot.publish(await self._brought(connection, fresh))
            except EventStoreUnavailable as error:
                self._note_silent(error)
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return

    async def _bring_in(self, connection: Connection) -> None:
        """Publish views until the one that answers has every change."""
        async with self._publishing:
            while True:
                view = self._slot.current
                asked = time.monotonic()
                page = await self._page(connection, view, view.seq)
                if page is None:
                    self._current_at = asked
                    return
                self._slot.publish(await asyncio.to_thread(self._following, view, [page]))
                view.release.live.reread(page.customers)

    async def _brought(self, connection: Connection, view: View) -> View:
        """Return the view of a release that does not answer yet with every change."""
        whole = Changed(view.seq, [], frozenset(), 0)
        states: dict[tuple[Kind, str], Change] = {}
        while (page := await self._page(connection, view, whole.seq)) is not None:
            _overtake(states, page.states)
            whole = Changed(page.seq, [], frozenset(), whole.unreadable + page.unreadable)
        if whole.seq == view.seq:
            return view
        return await asyncio.to_thread(self._following, view, [whole._replace(states=[*states.values()])])

    async def _page(self, connection: Connection, view: View, after: int) -> Changed | None:
        """Return the changes for a view that follow one; None if that is the last."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                if await last(connection) <= after:
                    return None
            async with asyncio.timeout(10 * _PATIENCE_SECONDS):
                return await changed(connection, after, _AT_ONCE, view.release.bundle.manifest.data_cut_off)
        except TimeoutError as error:
            raise EventStoreUnavailable("PostgreSQL does not answer") from error

    def _following(self, view: View, pages: Sequence[Changed]) -> View:
        """Return the next view of a release with some changes; slow, so in a thread."""
        states = {(kind_of(one), one.id): one for page in pages for one in page.states}
        channels = view.catalogue.channels
        fitting = [one for state in states.values() for one in _fitting(state, channels)]
        self.refused += sum(page.unreadable for page in pages)
        return view.following(self._applied(view.catalogue, fitting), pages[-1].seq)

    def _applied(self, catalogue: Catalogue, states: Sequence[Change]) -> Catalogue:
        """Return a catalogue with all states that can be brought into it."""
        if not states:
            return catalogue
        try:
            return apply(catalogue, states)
        except InvalidInput as error:
            # What is written was checked against the tables; a release that knows less refuses some of it.
            if len(states) == 1:
                _log.error("a change cannot be shown by release: %s", error)
                self.refused += 1
                return catalogue
            half = len(states) // 2
            return self._applied(self._applied(catalogue, states[:half]), states[half:])

    def _tell(self, *_: object) -> None:
        self._told.set()

    def _note_silent(self, error: Exception | None) -> None:
        """Log once that changes cannot be read, or can be again."""
        if error is not None and not self._silent:
            _log.error("changes of the catalogue cannot be read, the last ones serve: %s", error)
        elif error is None and self._silent:
            _log.info("changes of the catalogue can be read again")
        self._silent = error is not None


def _overtake(states: dict[tuple[Kind, str], Change], later: Iterable[Change]) -> None:
    """Put later states in the place of earlier ones of the same things: of all that is read, the last ones are held."""
    for one in later:
        key = kind_of(one), one.id
        states.pop(key, None)  # or it would keep the place of the first
        states[key] = one


def _fitting(state: Change, channels: Iterable[str]) -> Iterator[Change]:
    """Yield a state without the channels that a release does not declare; nothing if it is of such a channel alone."""
    match state:
        case OfferState() | PlacementState() if state.channels is not None:
            yield replace(state, channels=tuple(one for one in state.channels if one in channels))
        case PromotionState():
            if state.channel in channels:
                yield state
        case _:
            yield state
