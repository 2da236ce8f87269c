"""Follows the change log: brings what was changed in the database into the view that answers."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from embeddings.catalogue.changes import (
    Change,
    Kind,
    OfferState,
    PlacementState,
    PromotionState,
    Withdrawal,
    kind_of,
)
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.snapshot import apply
from embeddings.database.changelog import NOTIFICATION, Changed, Position, changed, identify, newest
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
        self._begun_behind = False

    @property
    def lag_seconds(self) -> float:
        """Return how long ago it was last known that the view has every change."""
        return time.monotonic() - self._current_at

    @property
    def is_late(self) -> bool:
        """Return whether changes may be missing that are older than changes may be."""
        return self._begun_behind or self.lag_seconds > _LATE_SECONDS

    async def follow(self) -> None:
        """Bring changes into the view as they are committed, until cancelled."""
        while True:
            try:
                async with connected(self._url, refuses="to be followed") as connection:
                    await identify(connection)
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
                await identify(connection)
                await self._bring_in(connection)
        except OpportuneError as error:
            self._note_silent(error)

    async def begin_with(self, view: View) -> None:
        """Publish the view of another release as it was made, in a worker that does not answer yet; it then catches up.

        What it answers counts as late until it has: where PostgreSQL is silent, a worker that replaces another must not
        wait for it.
        """
        self._slot.publish(view)
        self._begun_behind = True

    async def publish(self, view: View) -> None:
        """Publish the view of another release once it has every change; wait for PostgreSQL if it is silent.

        The release before serves meanwhile: a new one without the changes would show what was withdrawn.
        """
        while True:
            try:
                async with connected(self._url, refuses="to be followed") as connection:
                    await identify(connection)
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
                view, asked = self._slot.current, time.monotonic()
                start = await self._start(connection, view)
                if start is None:
                    self._current_at = asked
                    self._begun_behind = False
                    return
                # A log from its beginning all at once: what it says first is older than what is shown now.
                whole = await self._read(connection, view, start.seq, None if start.seq < view.seq else 1)
                self._slot.publish(await asyncio.to_thread(self._following, view, start, whole))
                view.release.live.reread(whole.customers)

    async def _brought(self, connection: Connection, view: View) -> View:
        """Return the view of a release that does not answer yet with every change."""
        start = await self._start(connection, view)
        if start is None:
            return view
        return await asyncio.to_thread(self._following, view, start, await self._read(connection, view, start.seq))

    async def _start(self, connection: Connection, view: View) -> Position | None:
        """Return the last change before those that a view lacks; None if it has every one.

        A view of another log, or of a later state of this one, lacks all of them.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                last = await newest(connection)
        except TimeoutError as error:
            raise EventStoreUnavailable("PostgreSQL does not answer") from error
        if last.log == view.log and last.seq >= view.seq:
            return None if last.seq == view.seq else Position(view.log, view.seq)
        if view.seq:
            _log.warning(
                "release %s has the changes up to %d of another database, or of a later state of this one: "
                "all %d changes that this one has are brought in",
                view.version,
                view.seq,
                last.seq,
            )
        return Position(last.log, 0)

    async def _read(self, connection: Connection, view: View, after: int, most: int | None = None) -> Changed:
        """Return the changes for a view that follow one, in so many pages at most: the last state of each thing."""
        whole, pages = Changed(after, [], frozenset(), 0), 0
        states: dict[tuple[Kind, str], Change] = {}
        while most is None or pages < most:
            try:
                async with asyncio.timeout(10 * _PATIENCE_SECONDS):
                    page = await changed(connection, whole.seq, _AT_ONCE, view.release.bundle.manifest.data_cut_off)
            except TimeoutError as error:
                raise EventStoreUnavailable("PostgreSQL does not answer") from error
            if page.seq == whole.seq:
                break
            _overtake(states, page.states)
            whole = Changed(page.seq, [], whole.customers | page.customers, whole.unreadable + page.unreadable)
            pages += 1
        return whole._replace(states=[*states.values()])

    def _following(self, view: View, start: Position, whole: Changed) -> View:
        """Return the next view of a release with the changes that follow one; slow, so in a thread."""
        fitting = [_fitting(state, view.catalogue.channels) for state in whole.states]
        self.refused += whole.unreadable
        return view.following(self._applied(view.catalogue, fitting), whole.seq, start.log)

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


def _fitting(state: Change, channels: Iterable[str]) -> Change:
    """Return a state without the channels that a release does not declare; withdrawn if it is of such a one alone."""
    match state:
        case OfferState() | PlacementState() if state.channels is not None:
            return replace(state, channels=tuple(one for one in state.channels if one in channels))
        case PromotionState() if state.channel not in channels:
            return Withdrawal(kind="promotion", id=state.id)
        case _:
            return state
