"""``GET /v1/products/{id}/similar``."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

import numpy as np
from litestar import Request, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.types import HTTPScope
from msgspec import UNSET, Meta, Struct, UnsetType

from embeddings.catalogue.context import Context, Identifier
from embeddings.errors import InvalidInput
from serving.api.decode import read_query
from serving.api.problems import UnknownResource
from serving.clock import Clock
from serving.details import details_of
from serving.slot import ViewSlot

SIMILAR = "/v1/products/{product_id}/similar"
_SIMILAR = re.compile(rb"/v1/products/(?P<product_id>.*)/similar/?", re.DOTALL)


class SimilarQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How many similar products, where they must be eligible (anywhere, if no channel is named), and what to show."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    channel: Identifier | None = None
    location: Identifier | None = None
    include: tuple[Literal["attributes", "price"], ...] = ()


class SimilarProduct(Struct, frozen=True):
    """A product and how similar it is: the cosine of the two product vectors, -1 to 1."""

    id: str
    rank: int
    score: float
    attributes: dict[str, str] | UnsetType = UNSET
    price: float | UnsetType = UNSET


class SimilarResponse(Struct, frozen=True):
    """Products similar to one, the most similar first."""

    model_version: str
    items: list[SimilarProduct]


# The framework matches decoded paths, at each slash: to it an id with a slash is several parts. So it takes whatever
# lies below, and the id is read off the path as it was sent.
@get("/v1/products/{rest:path}", summary="Products similar to a product")
async def similar(request: Request[Any, Any, Any], state: State) -> SimilarResponse:
    """At most ``limit`` products nearest to a product, itself left out, eligible in the context given.

    Query parameters: ``limit`` (1 to 100, default 10), ``channel`` and ``location``, ``include`` (separated by commas).
    """
    product_id = _product_id(request.scope)
    query = read_query(request.query_params, SimilarQuery)
    slot: ViewSlot = state.slot
    clock: Clock = state.clock
    view = slot.current
    catalogue, rows = view.catalogue, view.release.newest
    row = catalogue.products.ids.row(product_id)
    if row is None:
        raise UnknownResource(f"the catalogue holds no product {product_id!r}")
    recommendable = view.eligibility.recommendable
    eligible = recommendable if recommendable.size < len(catalogue.products.ids) else None
    if query.channel is not None:
        view.eligibility.channel(query.channel, "channel")
        place = view.eligibility.place(query.location, "location")
        eligible = view.eligibility.products(Context(query.channel), place, clock.now())
    elif query.location is not None:
        raise InvalidInput("channel", "expected a channel together with a location: it says what is shown there")
    found = rows.similar.search(rows.units.take(np.array([row])), query.limit + 1, [eligible])
    others = [
        (other, score)
        for other, score in zip(found.rows_BK[0].tolist(), found.scores_BK[0].tolist(), strict=True)
        if other not in {row, -1}
    ]
    items: list[SimilarProduct] = []
    for rank, (other, score) in enumerate(others[: query.limit], start=1):
        details = details_of(catalogue, "product", other, query.include)
        id_ = catalogue.products.ids.id(other)
        items.append(SimilarProduct(id_, rank, score, details.attributes, details.price))
    return SimilarResponse(view.version, items)


def _product_id(scope: HTTPScope) -> str:
    """Return the id of the product that a path names, and note the route for metrics."""
    path = _SIMILAR.fullmatch(scope["raw_path"])
    scope["path_template"] = SIMILAR if path else ""  # under which metrics count the request
    if path is None:
        raise NotFoundException
    try:
        return unquote_to_bytes(path["product_id"]).decode()
    except UnicodeDecodeError:
        raise UnknownResource("expected a product's id in UTF-8, percent-encoded") from None
