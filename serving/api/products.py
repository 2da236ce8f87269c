"""``GET /v1/products/{id}/similar``."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

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
from serving.explain import Reason
from serving.similar import Relation, related
from serving.slot import ViewSlot

SIMILAR = "/v1/products/{product_id}/similar"
_SIMILAR = re.compile(rb"/v1/products/(?P<product_id>.*)/similar/?", re.DOTALL)


class SimilarQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How products go with the one, how many, where they must be eligible, and what to show.

    They may be eligible anywhere if no channel is named.
    """

    relation: Relation = "substitutes"
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    channel: Identifier | None = None
    location: Identifier | None = None
    include: tuple[Literal["attributes", "price"], ...] = ()


class SimilarProduct(Struct, frozen=True):
    """A product that goes with another, why, and how much.

    Attributes:
        score: of substitutes the cosine of the vectors by which products are similar, -1 to 1; of complements the share
            of the product's baskets that they lay in.
        support: of complements in how many baskets both lay.
    """

    id: str
    rank: int
    score: float
    reasons: list[Reason]
    support: int | UnsetType = UNSET
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
    """At most ``limit`` products that go with a product, itself left out, eligible in the context given.

    Query parameters: ``relation`` (substitutes or complements), ``limit`` (1 to 100, default 10), ``channel`` and
    ``location``, ``include`` (separated by commas).
    """
    product_id = _product_id(request.scope)
    query = read_query(request.query_params, SimilarQuery)
    slot: ViewSlot = state.slot
    clock: Clock = state.clock
    view = slot.current
    catalogue = view.catalogue
    row = catalogue.products.ids.row(product_id)
    if row is None:
        raise UnknownResource(f"the catalogue holds no product {product_id!r}")
    eligible = view.eligibility.recommendable
    if query.channel is not None:
        view.eligibility.channel(query.channel, "channel")
        place = view.eligibility.place(query.location, "location")
        eligible = view.eligibility.products(Context(query.channel), place, clock.now())
    elif query.location is not None:
        raise InvalidInput("channel", "expected a channel together with a location: it says what is shown there")
    items: list[SimilarProduct] = []
    for rank, one in enumerate(related(view, row, query.relation, eligible, query.limit), start=1):
        details = details_of(catalogue, "product", one.row, query.include)
        support = UNSET if one.support is None else one.support
        id_ = catalogue.products.ids.id(one.row)
        items.append(SimilarProduct(id_, rank, one.score, one.reasons, support, details.attributes, details.price))
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
