"""``/v1/runs``: runs of the retraining job, and a request for one."""

from typing import Annotated

from msgspec import Meta, Struct

from embeddings.database.runs import LoggedRun, Run, find, page, request
from serving.api.decode import JSON
from serving.api.problems import UnknownResource
from serving.management.calls import Answer, Asked, Call
from serving.management.database import CatalogueDatabase
from serving.management.shapes import before, cursor_of

_LARGEST_ID = 2**63 - 1


class RunsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of runs."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    cursor: str | None = None


class RunsPage(Struct, frozen=True):
    """Runs, the newest first; ``cursor`` leads to the next page, null where there is none."""

    items: list[Run]
    cursor: str | None


def calls(database: CatalogueDatabase) -> list[Call]:
    """Return the calls about runs."""

    async def ask(asked: Asked) -> Answer:
        """Ask for a run; one that waits or is under way already is the answer, and no other is made."""
        async with database.transaction() as connection:
            return Answer(await request(connection, asked.actor, "request"))

    async def listed(asked: Asked) -> Answer:
        """A page of runs, the newest first."""
        query = asked.query(RunsQuery)
        async with database.transaction() as connection:
            found = await page(connection, before(query.cursor), query.limit + 1)
        items = found[: query.limit]
        return Answer(RunsPage(items, cursor_of(items[-1].id) if len(found) > query.limit else None))

    async def one(asked: Asked) -> Answer:
        """A run, with the end of what it printed."""
        number = int(asked.id) if asked.id.isascii() and asked.id.isdecimal() and len(asked.id) < 20 else _LARGEST_ID
        async with database.transaction() as connection:
            run = await find(connection, min(number, _LARGEST_ID))
        if run is None:
            raise UnknownResource(f"there is no run {asked.id!r}")
        return Answer(run)

    return [
        Call("POST", "/v1/runs", ask, Run, "Ask for a run of the retraining job", accepts=(JSON,)),
        Call("GET", "/v1/runs", listed, RunsPage, "Runs of the retraining job", query=RunsQuery),
        Call("GET", "/v1/runs/{id}", one, LoggedRun, "A run"),
    ]
