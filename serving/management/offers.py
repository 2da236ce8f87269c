"""``POST /v1/offers/{id}:approve``, ``:pause`` and ``:resume``: an offer from one state to the next."""

from datetime import UTC, datetime
from functools import partial

import msgspec
from msgspec.structs import replace

from embeddings.catalogue.changes import Change, OfferState
from embeddings.catalogue.tables import OfferStatus
from embeddings.database.present import Thing
from serving.api.decode import JSON
from serving.api.problems import Conflict
from serving.management.calls import Answer, Asked, Call
from serving.management.editor import Editor, known
from serving.management.shapes import Seq, precondition
from serving.management.states import ShownStatus, shown_status

_MOVES: dict[str, tuple[tuple[ShownStatus, ...], OfferStatus, str]] = {
    "approve": (("draft", "pending"), "live", "Let an offer go live"),
    "pause": (("scheduled", "live"), "paused", "Pause a live offer"),
    "resume": (("paused",), "live", "Resume a paused offer"),
}
"""By action: from which states it leads, to which one, and its summary."""


def calls(editor: Editor) -> list[Call]:
    """Return the calls that lead an offer from one state to the next."""

    async def moved(action: str, asked: Asked) -> Answer:
        """Change an offer's state, and nothing else of it."""
        make = partial(_moved, action, asked.id)
        written = await editor.edit("offer", asked.id, asked.actor, make, precondition(asked.request.headers))
        return Answer(Seq(written.newest), written.seq)

    return [
        Call("POST", f"/v1/offers/{{id}}:{action}", partial(moved, action), Seq, summary, accepts=(JSON,))
        for action, (_, _, summary) in _MOVES.items()
    ]


def _moved(action: str, one: str, thing: Thing | None) -> Change:
    """Return an offer in the state that an action leads to; raise Conflict if it does not lead there from its own."""
    offer = msgspec.json.decode(known("offer", one, thing).body, type=OfferState)
    sources, target, _ = _MOVES[action]
    status = shown_status(offer, datetime.now(UTC))
    if status not in sources:
        raise Conflict(f"offer {one!r} is {status}; only one that is {' or '.join(sources)} can be told to {action}")
    return replace(offer, status=target)
