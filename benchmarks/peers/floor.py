"""The floor: what an empty endpoint costs on this stack, with the same bodies in and out."""

from typing import Any

import msgspec
from litestar import Litestar, Request, Response, post
from litestar.datastructures import State

from benchmarks.peers.stack import PeerRequest, events, readyz

_asked = msgspec.json.Decoder(PeerRequest)
_FILLER = b'{"items":[]}'


@post("/v1/recommend", status_code=200)
async def recommend(request: Request[Any, Any, Any], state: State) -> Response[bytes]:
    """Decode the request, do nothing, and send the same answer as always."""
    _asked.decode(await request.body())
    return Response(state.body, media_type="application/json")


def app(body_bytes: int) -> Litestar:
    """Return the empty service, whose answer has this many bytes."""
    body = _FILLER.ljust(body_bytes)
    return Litestar([recommend, events, readyz], state=State({"body": body}), logging_config=None, openapi_config=None)
