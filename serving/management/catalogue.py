"""``/v1/products`` and the other kinds: list, read, write, withdraw, look back and bring back; ``/v1/changes``."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from embeddings.catalogue.changes import STATES, Change, Kind, Withdrawal
from embeddings.database.changelog import Entry
from embeddings.database.present import Thing
from serving.api.decode import JSON, BodyDecoder, malformed
from serving.management.calls import MERGE_PATCH, NDJSON, Answer, Asked, Call
from serving.management.editor import Editor, Make, known
from serving.management.shapes import (
    Changes,
    ChangesQuery,
    History,
    HistoryQuery,
    Item,
    LoggedChange,
    OffersQuery,
    Page,
    PageQuery,
    Restore,
    Seq,
    before,
    cursor_of,
    etag_of,
    precondition,
)
from serving.management.states import merged, read_object, shown, state_of

NAMES: Mapping[str, Kind] = {
    "products": "product",
    "locations": "location",
    "customers": "customer",
    "offers": "offer",
    "campaigns": "campaign",
    "segments": "segment",
    "promotions": "promotion",
    "placements": "placement",
}
"""Kinds by their names in paths."""


def calls(editor: Editor) -> list[Call]:
    """Return the calls about all kinds."""

    async def changes(asked: Asked) -> Answer:
        """The change log: whoever has read up to some change has missed none before it."""
        query = asked.query(ChangesQuery)
        return Answer(Changes([_logged(one) for one in await editor.changes(query.after, query.limit)]))

    found = [Call("GET", "/v1/changes", changes, Changes, "The change log", query=ChangesQuery)]
    for name, kind in NAMES.items():
        found += _Resource(editor, name, kind).calls()
    return found


class _Resource:
    """The calls about one kind of thing."""

    def __init__(self, editor: Editor, name: str, kind: Kind) -> None:
        self._editor = editor
        self._name = name
        self._kind: Kind = kind
        self._page_query = OffersQuery if kind == "offer" else PageQuery
        self._restore = BodyDecoder(Restore)

    def calls(self) -> list[Call]:
        """Return the calls."""
        kind, name, path, state = self._kind, self._name, f"/v1/{self._name}", STATES[self._kind]
        return [
            Call("GET", path, self.page, Page, f"A page of {name}", query=self._page_query),
            Call("POST", f"{path}:batch", self.batch, Seq, f"Write many {name}", list[state], (JSON, NDJSON)),
            Call("GET", f"{path}/{{id}}/history", self.history, History, f"Changes of a {kind}", query=HistoryQuery),
            Call("POST", f"{path}/{{id}}:restore", self.restore, Seq, f"Bring back a {kind}", Restore, (JSON,)),
            Call("GET", f"{path}/{{id}}", self.one, state, f"A {kind}"),
            Call("PUT", f"{path}/{{id}}", self.put, Seq, f"Create or replace a {kind}", state, (JSON,)),
            Call("PATCH", f"{path}/{{id}}", self.patch, Seq, f"Change a {kind}", dict[str, Any], (MERGE_PATCH, JSON)),
            Call("DELETE", f"{path}/{{id}}", self.delete, Seq, f"Withdraw a {kind}"),
        ]

    async def page(self, asked: Asked) -> Answer:
        """A page, the one that changed last first; what changes meanwhile moves to the front."""
        query, now = asked.query(self._page_query), datetime.now(UTC)
        at = (query.status, now) if isinstance(query, OffersQuery) and query.status else None
        things, more = await self._editor.page(self._kind, before(query.cursor), query.limit, query.q, at)
        items = [Item(one.seq, shown(self._kind, one.body, now)) for one in things]
        return Answer(Page(items, cursor_of(items[-1].seq) if more else None))

    async def one(self, asked: Asked) -> Answer:
        """One, with the ETag that a later write may expect; 304 where If-None-Match names it."""
        thing = await self._editor.thing(self._kind, asked.id)
        given = asked.request.headers.get("if-none-match")
        if given is not None and etag_of("If-None-Match", given) == thing.seq:
            return Answer(None, thing.seq, 304)
        return Answer(shown(self._kind, thing.body, datetime.now(UTC)), thing.seq)

    async def put(self, asked: Asked) -> Answer:
        """Create it, or replace the whole of it: a field that is not given is as if it were never said."""
        state = state_of(self._kind, asked.id, read_object(asked.body))
        return await self._edited(asked, lambda _: state)

    async def patch(self, asked: Asked) -> Answer:
        """Change the fields given (JSON merge patch, RFC 7396); null takes a field away."""
        given = read_object(asked.body)

        def make(thing: Thing | None) -> Change:
            present = msgspec.json.decode(known(self._kind, asked.id, thing).body)
            try:
                return state_of(self._kind, asked.id, merged(present, given))
            except RecursionError as error:
                raise malformed(error) from None

        return await self._edited(asked, make)

    async def delete(self, asked: Asked) -> Answer:
        """Withdraw it everywhere; its history stays, and a later write brings it back."""

        def make(thing: Thing | None) -> Change:
            return Withdrawal(kind=self._kind, id=known(self._kind, asked.id, thing).id)

        return await self._edited(asked, make)

    async def batch(self, asked: Asked) -> Answer:
        """Create or replace up to 10,000, all or none: a JSON list, or one JSON object a line; every fault is named."""
        return Answer(Seq(await self._editor.write(self._kind, asked.body, asked.media_type, asked.actor)))

    async def history(self, asked: Asked) -> Answer:
        """Who changed it when, and what it was then; the newest change first."""
        query = asked.query(HistoryQuery)
        entries, more = await self._editor.past(self._kind, asked.id, before(query.cursor), query.limit)
        items = [_logged(one) for one in entries]
        return Answer(History(items, cursor_of(items[-1].seq) if more else None))

    async def restore(self, asked: Asked) -> Answer:
        """Bring it back to the state that one of its changes made; checked as a new change, and logged as one."""
        seq = self._restore.decode(asked.body).seq
        written = await self._editor.restore(
            self._kind, asked.id, asked.actor, seq, precondition(asked.request.headers)
        )
        return Answer(Seq(written.newest), written.seq)

    async def _edited(self, asked: Asked, make: Make) -> Answer:
        written = await self._editor.edit(self._kind, asked.id, asked.actor, make, precondition(asked.request.headers))
        return Answer(Seq(written.newest), written.seq)


def _logged(entry: Entry) -> LoggedChange:
    """Return a change as it is shown: the state as it was said, in which an offer is live whatever the time."""
    body = None if entry.body is None else msgspec.json.decode(entry.body, type=dict[str, Any])
    return LoggedChange(entry.seq, entry.at, entry.actor, entry.kind, entry.id, entry.body is None, body)
