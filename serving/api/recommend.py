"""``POST /v1/recommend``."""

from serving.api.decode import BodyDecoder
from serving.api.post import Post
from serving.engine import Engine
from serving.recommendation import Recommendation, Recommendations, RecommendRequest


def recommend(engine: Engine) -> Post[RecommendRequest, Recommendation | Recommendations]:
    """Return the route that answers recommend calls."""

    async def answer(request: RecommendRequest) -> Recommendation | Recommendations:
        """At most ``limit`` eligible items, the best first; always that many when that many are eligible.

        For several ``placements`` an answer for each.
        """
        if request.placements:
            return await engine.recommend_several(request)
        return await engine.recommend(request)

    return Post(
        "/v1/recommend",
        RecommendRequest,
        (Recommendation, Recommendations),
        BodyDecoder(RecommendRequest).decode,
        answer,
        200,
        "Recommend products or offers for a customer in a context",
    )
