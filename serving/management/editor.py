"""Reads and changes the catalogue in PostgreSQL for the calls of the management API."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from embeddings.catalogue.changes import Change, Kind
from embeddings.database.changelog import Entry, change_of, check_expected, lock, read, repeated, write
from embeddings.database.present import Thing, page, past, present
from embeddings.database.references import unknown_references
from embeddings.errors import InvalidChanges, InvalidInput, Stale
from serving.api.problems import UnknownResource
from serving.management.database import CatalogueDatabase
from serving.management.releases import Releases
from serving.management.states import states_of


class Written(NamedTuple):
    """What a write made.

    Attributes:
        newest: the newest change of all.
        seq: the last change of the thing that was written; None if it was withdrawn.
    """

    newest: int
    seq: int | None


class Precondition(NamedTuple):
    """What must hold of a thing before it is changed.

    Attributes:
        there: whether there must be one, or must be none; None if either will do.
        seq: of its last change; None for any.
    """

    there: bool | None = None
    seq: int | None = None


Make = Callable[[Thing | None], Change]
"""Makes the change of a thing of what it is now."""


class Editor:
    """The catalogue, as calls read and change it.

    Args:
        database: PostgreSQL.
        releases: where the channels stand that offers and promotions may name.
    """

    def __init__(self, database: CatalogueDatabase, releases: Releases) -> None:
        self._database = database
        self._releases = releases

    async def thing(self, kind: Kind, one: str) -> Thing:
        """Return a thing as it is now; raise UnknownResource if there is none."""
        async with self._database.transaction() as connection:
            return known(kind, one, await present(connection, kind, one))

    async def page(
        self, kind: Kind, before: int, most: int, text: str, at: tuple[Sequence[str], datetime] | None
    ) -> tuple[list[Thing], bool]:
        """Return things, the one that changed last first, and whether others follow; see `present.page`."""
        async with self._database.transaction() as connection:
            return await page(connection, kind, before, most, text, at)

    async def past(self, kind: Kind, one: str, before: int, most: int) -> tuple[list[Entry], bool]:
        """Return the changes of a thing, the newest first, and whether others follow.

        Raises:
            UnknownResource: there never was such a thing.
        """
        async with self._database.transaction() as connection:
            entries, more = await past(connection, kind, one, before, most)
            if not entries and not (await past(connection, kind, one, 2**63 - 1, 1))[0]:
                raise UnknownResource(f"there never was a {kind} {one!r}")
            return entries, more

    async def changes(self, after: int, most: int) -> list[Entry]:
        """Return the changes of everything that follow one, the oldest first."""
        async with self._database.transaction() as connection:
            return await read(connection, after, most)

    async def edit(self, kind: Kind, one: str, actor: str, make: Make, must: Precondition) -> Written:
        """Change one thing; nobody else changes anything between the look at it and the change.

        Args:
            kind: of what.
            one: its id.
            actor: who changes it.
            make: returns the change, made of the present state.
            must: what must hold of the present state.

        Raises:
            Stale: that does not hold.
            InvalidChanges: it names what the catalogue does not hold, and did not name it before.
            StillReferred: live offers refer to what is withdrawn.
        """
        channels = self._releases.channels()
        async with self._database.transaction() as connection:
            await lock(connection)
            if must.seq is not None or must.there is False:
                await check_expected(connection, {(kind, one): must.seq})
            found = await present(connection, kind, one)
            if must.there and found is None:
                raise Stale(f"expected a {kind} {one!r} that is there: there is none")
            newest = await write(connection, [make(found)], actor, channels=channels)
            now = await present(connection, kind, one)
        return Written(newest, None if now is None else now.seq)

    async def restore(self, kind: Kind, one: str, actor: str, seq: int, must: Precondition) -> Written:
        """Bring a thing back to the state that one of its changes made; it is checked as a new change is."""
        async with self._database.transaction() as connection:
            entries, _ = await past(connection, kind, one, seq + 1, 1)
        if not entries or entries[0].seq != seq:
            raise InvalidInput("seq", f"expected one of a change of {kind} {one!r}; see its history")
        body = entries[0].body
        if body is None:
            raise InvalidInput("seq", "expected a change that made a state; that one withdrew it, as DELETE does")
        return await self.edit(kind, one, actor, lambda _: change_of(kind, one, body), must)

    async def write(self, kind: Kind, body: bytes, media_type: bytes, actor: str) -> int:
        """Write many states of one kind, all or none, and return the newest change of all.

        Raises:
            InvalidChanges: some are wrong; names every fault.
        """
        states, faults = await asyncio.to_thread(states_of, kind, body, media_type)
        channels = self._releases.channels()
        async with self._database.transaction() as connection:
            if faults:
                unknown = await unknown_references(connection, [state for _, state in states], channels)
                faults += repeated([(place, (kind, state.id)) for place, state in states])
                faults += [(states[index][0], fault) for index, fault in unknown]
                raise InvalidChanges(sorted(faults, key=lambda fault: fault[0]))
            return await write(connection, [state for _, state in states], actor, channels=channels)


def known(kind: Kind, one: str, found: Thing | None) -> Thing:
    """Return what was found; raise UnknownResource if that is nothing."""
    if found is None:
        raise UnknownResource(f"the catalogue holds no {kind} {one!r}")
    return found
