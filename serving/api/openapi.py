"""The OpenAPI description: Litestar's, completed with what it cannot see because input is decoded strictly."""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Parameter, Reference, RequestBody

from serving.api.events import EventsRequest
from serving.api.problems import PROBLEM_JSON, Problem
from serving.api.products import SimilarQuery
from serving.engine import RecommendRequest

_BODIES: Mapping[str, type[msgspec.Struct]] = {"/v1/recommend": RecommendRequest, "/v1/events": EventsRequest}
_QUERIES: Mapping[str, type[msgspec.Struct]] = {"/v1/products/{product_id}/similar": SimilarQuery}


def complete(app: Litestar) -> None:
    """Add the request bodies, the query parameters and the shape of errors to an application's description."""
    _, components = msgspec.json.schema_components(
        [*_BODIES.values(), Problem], ref_template="#/components/schemas/{name}"
    )
    schemas: dict[str, Any] = app.openapi_schema.components.schemas
    schemas |= components
    paths = app.openapi_schema.paths or {}
    for path, body in _BODIES.items():
        if (operation := paths[path].post) is not None:
            media = OpenAPIMediaType(schema=_reference(body))
            operation.request_body = RequestBody(content={"application/json": media}, required=True)
    for path, query in _QUERIES.items():
        if (operation := paths[path].get) is not None:
            operation.parameters = [*(operation.parameters or []), *_parameters(query)]
    for path, item in paths.items():
        for operation in (item.get, item.post):
            if operation is not None and path.startswith("/v1/"):
                _describe_errors(operation)


def _parameters(query: type[msgspec.Struct]) -> list[Parameter | Reference]:
    schema: dict[str, Any] = msgspec.json.schema_components([query])[1][query.__name__]
    return [
        Parameter(name=name, param_in="query", schema=one, required=name in schema.get("required", ()))
        for name, one in schema["properties"].items()
    ]


def _describe_errors(operation: Operation) -> None:
    responses = operation.responses if operation.responses is not None else {}
    responses.pop("400", None)
    responses["4XX"] = responses["5XX"] = OpenAPIResponse(
        description="Problem details (RFC 9457)",
        content={PROBLEM_JSON: OpenAPIMediaType(schema=_reference(Problem))},
    )


def _reference(kind: type) -> Reference:
    return Reference(ref=f"#/components/schemas/{kind.__name__}")
