"""One load, from checked tables to the database; it reads from top to bottom."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embeddings.catalogue.changes import STATES, AnyState, Kind, Withdrawal, oversized
from embeddings.catalogue.tables import EARLIEST
from embeddings.database.changelog import last, lock, write
from embeddings.database.connection import Connection, connected
from embeddings.database.event_days import keep_days
from embeddings.database.migrate import prepare
from embeddings.database.numbering import number
from embeddings.errors import InvalidInput
from training.datasets import MOVING, Dataset, as_of
from training.load.events import count, days_of, load_events
from training.load.states import Source, completed, sources

ACTOR = "opportune-load"
_AT_ONCE = 5_000
"""States in one transaction; others wait for it to write theirs."""
_MOST_NAMES = 500_000
"""Names of other things in one transaction, such as products that are promoted."""

_CHANGED = "SELECT count(*) FROM catalogue_changes WHERE seq > $1 AND actor = $2"
_NOW = "SELECT id, withdrawn, body::text FROM catalogue WHERE kind = $1 AND id = ANY ($2)"
_STARTS = "SELECT (body ->> 'starts')::timestamptz FROM offers WHERE id = $1"
_LISTED = "SELECT id FROM catalogue WHERE kind = $1 AND NOT withdrawn"


class Loaded(NamedTuple):
    """What a load has done.

    Attributes:
        things: states that the tables hold.
        changed: how many of them, and of those withdrawn, were not in the database so.
        events: rows of events.
        fresh: how many of them were not in the database.
        left_out: how many events lie outside of time, or have not happened yet.
        seq: the newest change of the catalogue.
    """

    things: int
    changed: int
    events: int
    fresh: int
    left_out: int
    seq: int

    @property
    def said(self) -> str:
        """Return it in one sentence."""
        left_out = (
            f"; {self.left_out:,} events before {EARLIEST:%Y} or that have not happened yet are left out"
            if self.left_out
            else ""
        )
        return (
            f"loaded {self.things:,} things, {self.changed:,} of them changed, and {self.events:,} events, "
            f"{self.fresh:,} of them new{left_out}; the newest change is {self.seq}"
        )


async def load(dataset: Dataset, url: str, *, replace: bool, now: datetime) -> Loaded:
    """Bring a checked data set into a database, whose schema is migrated first.

    It can be stopped at any moment and done again: what is there already stays as it is. So does what the tables have
    no columns for, such as what was edited by hand.

    Args:
        dataset: all of it.
        url: of PostgreSQL.
        replace: whether what the tables that are given do not list is withdrawn.
        now: the present moment, with its zone. Later events are left out.

    Raises:
        EventStoreUnavailable: PostgreSQL does not answer.
        InvalidInput: it is no URL of a PostgreSQL, or its schema is of another version; the data are there already
            with other times; what a table without a row lists is to replace what there is; or a state is larger than
            one may be.
    """
    await prepare(url)
    given = count(dataset)
    dataset = as_of(dataset, now)
    found, events = sources(dataset), count(dataset)
    with _progress() as progress:
        async with connected(url, refuses="to load") as connection:
            await _check_unmoved(connection, dataset)
            if replace:
                await _check_filled(connection, found)
            before, listed = await last(connection), dict[Kind, set[str]]()
            for source in found:
                if not source.rows:
                    continue
                task = progress.add_task(f"{source.kind}s", total=source.rows)
                kept: set[str] = set()
                for states in source.states():
                    _check_sizes(source.kind, states)
                    for some in _chunks(states):
                        await _write(connection, source, some)
                        progress.advance(task, len(some))
                    kept.update(one.id for one in states)
                listed[source.kind] = kept
            for source in reversed(found):  # what names others before what is named
                if replace and source.given:
                    await _withdraw(connection, source.kind, listed.get(source.kind, set()))
            changed = int(str(await connection.fetchval(_CHANGED, before, ACTOR)))
            seq = await last(connection)
            await number(connection)
            await keep_days(connection, days=days_of(dataset))  # before there are rows of them
            task, fresh = progress.add_task("events", total=events), 0
            async for rows, new in load_events(connection, dataset):
                progress.advance(task, rows)
                fresh += new
    return Loaded(sum(one.rows for one in found), changed, events, fresh, given - events, seq)


async def _check_unmoved(connection: Connection, dataset: Dataset) -> None:
    """Refuse data whose times move with the calendar where they were loaded at another time.

    No row of theirs would be known again, and everything would be there twice.
    """
    if dataset.name not in MOVING:
        return
    offer, starts = dataset.offers.select("offer_id", "starts").head(1).collect().row(0)
    there = await connection.fetchval(_STARTS, offer)
    if there is not None and there != starts:
        raise InvalidInput(
            "--data",
            f"expected an empty database for {dataset.name}: this one holds the same data of another week, by "
            f"{abs(starts - there).days} days, and all of it would be there twice",
        )


async def _check_filled(connection: Connection, found: Sequence[Source]) -> None:
    """Refuse to replace by a table without a row: an export that failed would withdraw all there is."""
    for source in found:
        if source.given and not source.rows:
            there = len(await connection.fetch(_LISTED, source.kind))
            raise InvalidInput(
                "--replace",
                f"expected a row in the table {source.kind}s; it has none, and all {there:,} {source.kind}s of the "
                "database would be withdrawn: leave the table out, or withdraw them over the management API",
            )


def _check_sizes(kind: Kind, states: Sequence[AnyState]) -> None:
    """Refuse states that are larger than one may be."""
    for state in states:
        for fault in oversized(state):
            raise InvalidInput(f"{kind}.{fault.field}", fault.expected)


async def _write(connection: Connection, source: Source, states: Sequence[AnyState]) -> None:
    """Write states of a kind, what their table does not hold as it is in the database."""
    async with connection.transaction():
        await lock(connection)  # nobody edits what is read here before it is written
        records = await connection.fetch(_NOW, source.kind, [one.id for one in states])
        decoder = msgspec.json.Decoder(STATES[source.kind])
        there = {record["id"]: (record["withdrawn"], decoder.decode(record["body"])) for record in records}
        fresh: list[AnyState] = []
        for state in states:
            withdrawn, now = there.get(state.id, (False, None))
            if withdrawn and not source.brings_back(state.id):
                continue
            if withdrawn and source.kind == "customer":
                now = None  # who was forgotten is a customer again, of whom nothing is known of before
            kept = state if now is None else completed(state, now, source.held)
            if withdrawn or kept != now:
                fresh.append(kept)
        if fresh:
            await write(connection, fresh, ACTOR)


async def _withdraw(connection: Connection, kind: Kind, kept: set[str]) -> None:
    """Withdraw things of a kind that are not among those kept."""
    gone = [record["id"] for record in await connection.fetch(_LISTED, kind) if record["id"] not in kept]
    for begin in range(0, len(gone), _AT_ONCE):
        await write(connection, [Withdrawal(kind=kind, id=one) for one in gone[begin : begin + _AT_ONCE]], ACTOR)


def _chunks(states: Sequence[AnyState]) -> list[Sequence[AnyState]]:
    """Return states in parts that a transaction can hold."""
    chunks: list[Sequence[AnyState]] = []
    begin = names = 0
    for place, one in enumerate(states):
        more = len(getattr(one, "products", ()))
        if place > begin and (place - begin >= _AT_ONCE or names + more > _MOST_NAMES):
            chunks.append(states[begin:place])
            begin, names = place, 0
        names += more
    return [*chunks, states[begin:]] if begin < len(states) else chunks


def _progress() -> Progress:
    columns = TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns)
