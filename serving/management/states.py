"""States of things as the management API takes and shows them: every fault named, and an offer's state in time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import msgspec
from msgspec import Raw
from msgspec.structs import asdict, replace

from embeddings.catalogue.changes import STATES, AnyState, Kind, OfferState, faults_of, misnamed, oversized
from embeddings.database.references import Fault
from embeddings.errors import InvalidChanges, InvalidInput
from embeddings.explained import explained
from serving.api.decode import malformed, read_fields
from serving.management.calls import NDJSON

MOST_AT_ONCE = 10_000

ShownStatus = Literal["draft", "pending", "scheduled", "live", "paused", "ended"]
SHOWN_STATUSES: tuple[ShownStatus, ...] = get_args(ShownStatus)
_MEAN_LIVE = ("scheduled", "ended")
"""What time makes of a live offer; taken for live, so that what was shown can be sent back as it is."""

_WHOLE = "body"


class Many(NamedTuple):
    """What a batch holds: the states that can be read, each with its place, and the faults of all others."""

    states: list[tuple[int, AnyState]]
    faults: list[Fault]


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds.

    Raises:
        MalformedBody: it is not JSON.
        InvalidInput: it is another kind of JSON.
    """
    found = _json(body)
    if not isinstance(found, dict):
        raise InvalidInput(_WHOLE, "expected a JSON object")
    return found


def state_of(kind: Kind, one: str, given: dict[str, Any]) -> AnyState:
    """Return the state that a JSON object says, of the thing that the path names.

    Raises:
        InvalidInput: the object names another thing.
        InvalidChanges: it is no state of this kind; names every fault.
    """
    named = given.get("id", one)
    if type(named) not in (str, int) or str(named) != one:
        raise InvalidInput("id", f"expected {one!r} as in the path, or none; got {named!r}")
    state, faults = _converted(kind, {**given, "id": one})
    if state is None or faults:
        raise InvalidChanges([(0, fault) for fault in faults])
    return state


def states_of(kind: Kind, body: bytes, media_type: bytes) -> Many:
    """Return the states that a JSON list, or lines of JSON, say.

    Raises:
        MalformedBody: it is not JSON.
        InvalidInput: it is no list, or one of more than ``MOST_AT_ONCE``.
    """
    try:
        states: Sequence[AnyState] = (
            _decoder(kind).decode_lines(body) if media_type == NDJSON else _list_decoder(kind).decode(body)
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidInput):
        return _each(kind, body, media_type)
    _check_count(len(states))
    faults = [(place, fault) for place, state in enumerate(states) for fault in _faults(state)]
    return Many([*enumerate(states)], faults)


def shown(kind: Kind, body: str, now: datetime) -> dict[str, Any]:
    """Return a state as it is shown: every field, and of an offer what time has made of its state."""
    state = msgspec.json.decode(body, type=STATES[kind])
    fields = asdict(state)
    if isinstance(state, OfferState):
        fields["status"] = shown_status(state, now)
    return fields


def shown_status(offer: OfferState, now: datetime) -> ShownStatus:
    """Return an offer's state at a moment."""
    if offer.status != "live":
        return offer.status
    if offer.ends.astimezone(UTC) <= now:
        return "ended"
    return "scheduled" if offer.starts.astimezone(UTC) > now else "live"


def merged(target: object, patch: object) -> Any:
    """Return a JSON value after a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    fields: dict[str, Any] = {**target} if isinstance(target, dict) else {}
    changes: dict[str, Any] = patch
    for name, value in changes.items():
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = merged(fields.get(name), value)
    return fields


@cache
def _decoder(kind: Kind) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(STATES[kind])


@cache
def _list_decoder(kind: Kind) -> msgspec.json.Decoder[Any]:
    several: Any = list[STATES[kind]]
    return msgspec.json.Decoder(several)


def _converted(kind: Kind, given: dict[str, Any]) -> tuple[AnyState | None, list[InvalidInput]]:
    """Return the state that a JSON object says, None if it says none, and all that is wrong."""
    given_status = given.get("status")
    if kind == "offer" and given_status in _MEAN_LIVE:
        given = {**given, "status": "live"}
    try:
        state = msgspec.convert(given, STATES[kind])
    except (msgspec.ValidationError, InvalidInput) as error:
        found = read_fields(STATES[kind], Raw(msgspec.json.encode(given)), _WHOLE).problems
        inner = [InvalidInput(one.field.removeprefix(_WHOLE).lstrip(".") or _WHOLE, one.expected) for one in found]
        return None, inner or [_said(error, kind)]
    faults = _faults(state)
    if given_status == "ended" and isinstance(state, OfferState) and not faults and not _has_ended(state):
        faults = [
            InvalidInput("status", "expected another: an offer ends by its ends, which lie ahead; pause it to stop it")
        ]
    return state, faults


def _has_ended(offer: OfferState) -> bool:
    return shown_status(replace(offer, status="live"), datetime.now(UTC)) == "ended"


def _faults(state: AnyState) -> list[InvalidInput]:
    return oversized(state) or [*faults_of(state), *misnamed(state)]


def _said(error: msgspec.ValidationError | InvalidInput, kind: Kind) -> InvalidInput:
    """Return a fault of the whole that no field has by itself."""
    if isinstance(error, InvalidInput):
        return error
    refused = explained(error, STATES[kind])
    return InvalidInput(refused.path or _WHOLE, refused.expected)


def _each(kind: Kind, body: bytes, media_type: bytes) -> Many:
    """Read states one by one, to name every fault; slow, so only for what the decoder has refused."""
    parts = _parts(body, lines=media_type == NDJSON)
    _check_count(len(parts))
    states: list[tuple[int, AnyState]] = []
    faults: list[Fault] = []
    for place, part in enumerate(parts):
        given = _json(part)
        if not isinstance(given, dict):
            faults.append((place, InvalidInput(_WHOLE, "expected a JSON object")))
            continue
        state, found = _converted(kind, given)
        if state is not None:
            states.append((place, state))
        faults += [(place, fault) for fault in found]
    return Many(states, faults)


def _parts(body: bytes, *, lines: bool) -> Sequence[Raw]:
    """Return the parts of a list, or of lines, undecoded: all of them as objects take many times their length."""
    try:
        return msgspec.json.Decoder(Raw).decode_lines(body) if lines else msgspec.json.decode(body, type=list[Raw])
    except msgspec.ValidationError:
        _json(body)  # which may be no JSON at all
        raise InvalidInput(_WHOLE, "expected a JSON list") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None


def _json(body: bytes | Raw) -> Any:
    """Return what a body, or a part of one, says in JSON; raise MalformedBody if it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None


def _check_count(count: int) -> None:
    if count > MOST_AT_ONCE:
        raise InvalidInput(_WHOLE, f"expected at most {MOST_AT_ONCE:,} at once, got {count:,}; send them in parts")
