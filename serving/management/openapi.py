"""The OpenAPI description of the management API, made from its table of calls."""

from collections.abc import Sequence
from inspect import getdoc
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    PathItem,
    RequestBody,
    Schema,
)

from embeddings.catalogue.changes import OfferState
from embeddings.catalogue.context import Identifier
from serving.api.description import describe_errors, json_content, parameters
from serving.api.problems import Problem
from serving.management.calls import Call
from serving.management.states import SHOWN_STATUSES

_TEMPLATE = "#/components/schemas/{name}"


def describe(app: Litestar, calls: Sequence[Call]) -> None:
    """Add all calls to an application's description."""
    bodies = [call.asked for call in calls if call.asked is not None]
    kinds = [*bodies, *(call.answered for call in calls), Problem]
    _, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    components[OfferState.__name__]["properties"]["status"]["enum"] = list(SHOWN_STATUSES)
    schemas: dict[str, Any] = app.openapi_schema.components.schemas
    schemas |= components
    paths = app.openapi_schema.paths = app.openapi_schema.paths or {}
    paths.pop("/v1", None)
    for call in calls:
        operation = _operation(call)
        describe_errors(operation)
        item = paths.setdefault(call.path, PathItem())
        setattr(item, call.method.lower(), operation)
    if (health := paths["/healthz"].get) is not None:
        health.operation_id = "healthy"


def _operation(call: Call) -> Operation:
    words = [
        word for word in call.path.removeprefix("/v1/").replace("{id}", "one").replace(":", "/").split("/") if word
    ]
    identifier: Any = msgspec.json.schema(Identifier)
    ids = [Parameter(name="id", param_in="path", schema=identifier, required=True)] if "{id}" in call.path else []
    asked = None
    if call.asked is not None:
        schema: Any = Schema()
        (schema,), _ = msgspec.json.schema_components([call.asked], ref_template=_TEMPLATE)
        content = {accepted.decode(): OpenAPIMediaType(schema=schema) for accepted in call.accepts}
        asked = RequestBody(content=content, required=True)
    return Operation(
        operation_id="_".join([call.method.lower(), *words]),
        summary=call.summary,
        description=getdoc(call.answer),
        parameters=[*ids, *(parameters(call.query) if call.query else [])],
        request_body=asked,
        responses={"200": OpenAPIResponse(description="The answer", content=json_content(call.answered))},
    )
