"""``POST /v1/recommend``."""

from typing import Any

from litestar import Request, post
from litestar.datastructures import State

from serving.api.decode import BodyDecoder
from serving.engine import Engine, Recommendation, RecommendRequest

_decoder = BodyDecoder(RecommendRequest)


@post("/v1/recommend", status_code=200, summary="Recommend products or offers for a customer in a context")
async def recommend(request: Request[Any, Any, Any], state: State) -> Recommendation:
    """At most ``limit`` eligible items, the best first; always that many when that many are eligible."""
    engine: Engine = state.engine
    return await engine.recommend(await _decoder.read(request))
