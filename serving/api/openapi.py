"""The OpenAPI description: Litestar's, completed with what it cannot see because input is decoded strictly."""

from collections.abc import Sequence
from inspect import getdoc
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi.spec import OpenAPIResponse, Operation, Parameter, PathItem, RequestBody

from embeddings.catalogue.context import Identifier
from serving.api.description import describe_errors, json_content, parameters
from serving.api.model import ReadyQuery
from serving.api.post import Post
from serving.api.problems import Problem
from serving.api.products import SIMILAR, SimilarQuery

_NAMES = {
    "/v1/model": "model",
    "/v1/recommendations/{recommendation_id}": "recommendation",
    "/healthz": "healthy",
    "/readyz": "ready",
    "/metrics": "metrics",
}
"""Operations as programs may call them, by their paths."""


def complete(app: Litestar, posts: Sequence[Post[Any, Any]]) -> None:
    """Add the routes that take a body, the query parameters and the shape of errors to an application's description."""
    bodies = [kind for post in posts for kind in (post.asked, *post.answered)]
    _, components = msgspec.json.schema_components([*bodies, Problem], ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = app.openapi_schema.components.schemas
    schemas |= components
    paths = app.openapi_schema.paths = app.openapi_schema.paths or {}
    for post in posts:
        paths[post.path] = PathItem(post=_operation(post))
    # To the framework this route takes a whole rest of a path.
    similar = paths[SIMILAR] = paths.pop("/v1/products/{rest}")
    if similar.get is not None:
        similar.get.operation_id = "similar"
        schema: Any = msgspec.json.schema(Identifier)
        product = Parameter(name="product_id", param_in="path", schema=schema, required=True)
        similar.get.parameters = [product, *parameters(SimilarQuery)]
    if (ready := paths["/readyz"].get) is not None:
        ready.parameters = [*parameters(ReadyQuery)]
        if ready.responses is not None:  # the same body, whether it is ready or not
            ready.responses["503"] = ready.responses["200"]
    for path, name in _NAMES.items():
        if path in paths and (described := paths[path].get) is not None:
            described.operation_id = name
    for path, item in paths.items():
        for operation in (item.get, item.post):
            if operation is not None and path.startswith("/v1/"):
                describe_errors(operation)


def _operation(post: Post[Any, Any]) -> Operation:
    return Operation(
        operation_id=post.path.removeprefix("/v1/"),
        summary=post.summary,
        description=getdoc(post.answer),
        request_body=RequestBody(content=json_content(post.asked), required=True),
        responses={str(post.status): OpenAPIResponse(description="The answer", content=json_content(*post.answered))},
    )
