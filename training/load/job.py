"""One load, from checked tables to the database; it reads from top to bottom."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embeddings.catalogue.changes import AnyState, Kind, Withdrawal
from embeddings.database.changelog import last, write
from embeddings.database.connection import Connection, connected
from embeddings.database.event_days import keep_days
from embeddings.database.migrate import prepare
from embeddings.database.numbering import number
from training.datasets import Dataset
from training.load.events import count, load_events
from training.load.states import sources

ACTOR = "opportune-load"
_AT_ONCE = 5_000
"""States in one transaction; others wait for it to write theirs."""
_MOST_NAMES = 500_000
"""Names of other things in one transaction, such as products that are promoted."""

_CHANGED = "SELECT count(*) FROM catalogue_changes WHERE seq > $1 AND actor = $2"
_LISTED = "SELECT id FROM catalogue WHERE kind = $1 AND NOT withdrawn"


class Loaded(NamedTuple):
    """What a load has done.

    Attributes:
        things: states that the tables hold.
        changed: how many of them, and of those withdrawn, were not in the database so.
        events: rows of events.
        fresh: how many of them were not in the database.
        seq: the newest change of the catalogue.
    """

    things: int
    changed: int
    events: int
    fresh: int
    seq: int

    @property
    def said(self) -> str:
        """Return it in one sentence."""
        return (
            f"loaded {self.things:,} things, {self.changed:,} of them changed, and {self.events:,} events, "
            f"{self.fresh:,} of them new; the newest change is {self.seq}"
        )


async def load(dataset: Dataset, url: str, *, replace: bool) -> Loaded:
    """Bring a checked data set into a database, whose schema is migrated first.

    It can be stopped at any moment and done again: what is there already stays as it is.

    Args:
        dataset: all of it.
        url: of PostgreSQL.
        replace: whether what the tables that are given do not list is withdrawn.

    Raises:
        EventStoreUnavailable: PostgreSQL does not answer.
        InvalidInput: it is no URL of a PostgreSQL, or its schema is of another version.
    """
    await prepare(url)
    found, events = sources(dataset), count(dataset)
    with _progress() as progress:
        async with connected(url, refuses="to load") as connection:
            before, listed = await last(connection), dict[Kind, set[str]]()
            for source in found:
                if not source.rows:
                    continue
                task = progress.add_task(f"{source.kind}s", total=source.rows)
                kept: set[str] = set()
                for states in source.states():
                    for some in _chunks(states):
                        await write(connection, some, ACTOR)
                        progress.advance(task, len(some))
                    kept.update(one.id for one in states)
                listed[source.kind] = kept
            for source in reversed(found):  # what names others before what is named
                if replace and source.given:
                    await _withdraw(connection, source.kind, listed.get(source.kind, set()))
            changed = int(str(await connection.fetchval(_CHANGED, before, ACTOR)))
            seq = await last(connection)
            await number(connection)
            await keep_days(connection)  # the coming days get partitions of their own before there are rows of them
            task, fresh = progress.add_task("events", total=events), 0
            async for rows, new in load_events(connection, dataset):
                progress.advance(task, rows)
                fresh += new
    return Loaded(sum(one.rows for one in found), changed, events, fresh, seq)


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
