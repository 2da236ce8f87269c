"""``GET /v1/products/{id}/similar``."""

from typing import Annotated, Any

import numpy as np
from litestar import Request, get
from litestar.datastructures import State
from msgspec import Meta, Struct

from embeddings.context import Context, Identifier
from embeddings.errors import InvalidInput
from serving.api.decode import read_query
from serving.api.problems import UnknownResource
from serving.clock import Clock
from serving.slot import BundleSlot


class SimilarQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How many similar products, and where they must be eligible; anywhere, if no channel is named."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    channel: Identifier | None = None
    location: Identifier | None = None


class SimilarProduct(Struct, frozen=True):
    """A product and how similar it is: the cosine of the two product vectors, -1 to 1."""

    id: str
    rank: int
    score: float


class SimilarResponse(Struct, frozen=True):
    """Products similar to one, the most similar first."""

    model_version: str
    items: list[SimilarProduct]


@get("/v1/products/{product_id:str}/similar", summary="Products similar to a product")
async def similar(product_id: str, request: Request[Any, Any, Any], state: State) -> SimilarResponse:
    """At most ``limit`` products nearest to a product, itself left out, eligible in the context given.

    Query parameters: ``limit`` (1 to 100, default 10), ``channel`` and ``location``.
    """
    query = read_query(request.query_params, SimilarQuery)
    slot: BundleSlot = state.slot
    clock: Clock = state.clock
    model = slot.current
    bundle = model.bundle
    row = bundle.catalog.products.ids.row(product_id)
    if row is None:
        raise UnknownResource(f"the catalogue holds no product {product_id!r}")
    eligible = None
    if query.channel is not None:
        model.eligibility.channel(query.channel, "channel")
        place = model.eligibility.place(query.location, "location")
        eligible = model.eligibility.products(Context(query.channel), place, clock.now())
    elif query.location is not None:
        raise InvalidInput("channel", "expected a channel together with a location: it says what is shown there")
    found = bundle.similar.search(np.array(bundle.units_ND[row : row + 1]), query.limit + 1, [eligible])
    items = [
        SimilarProduct(bundle.catalog.products.ids.id(other), rank, score)
        for rank, (other, score) in enumerate(
            [
                (other, score)
                for other, score in zip(found.rows_BK[0].tolist(), found.scores_BK[0].tolist(), strict=True)
                if other not in {row, -1}
            ][: query.limit],
            start=1,
        )
    ]
    return SimilarResponse(model.version, items)
