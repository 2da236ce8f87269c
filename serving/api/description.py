"""Parts of the OpenAPI descriptions of all processes: their settings, query strings, bodies and errors."""

from importlib.metadata import version
from typing import Any

import msgspec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Parameter, Reference, Schema

from serving.api.problems import PROBLEM_JSON, Problem


def openapi_config(title: str, description: str) -> OpenAPIConfig:
    """Return the settings of a description at ``/openapi.json``."""
    return OpenAPIConfig(
        title=title,
        version=version("opportune"),
        description=description,
        # Below this path Litestar answers what it does not know with a page of its own: nothing may lie there.
        path="/openapi.json",
        use_handler_docstrings=True,
        # The JSON document alone: pages around it would load their scripts from somebody else's server.
        render_plugins=[JsonRenderPlugin(path="/")],
    )


def json_content(*kinds: type[msgspec.Struct]) -> dict[str, OpenAPIMediaType]:
    """Return the description of a body that is JSON of a type, or of one of several."""
    references = [reference(kind) for kind in kinds]
    schema = references[0] if len(references) == 1 else Schema(one_of=references)
    return {"application/json": OpenAPIMediaType(schema=schema)}


def parameters(query: type[msgspec.Struct]) -> list[Parameter | Reference]:
    """Return the description of a query string."""
    schema: dict[str, Any] = msgspec.json.schema_components([query])[1][query.__name__]
    return [
        # A list is one parameter with commas, not one parameter a value.
        Parameter(
            name=name,
            param_in="query",
            schema=one,
            required=name in schema.get("required", ()),
            explode=False if one.get("type") == "array" else None,
        )
        for name, one in schema["properties"].items()
    ]


def describe_errors(operation: Operation) -> None:
    """Add the shape of errors to an operation."""
    responses = operation.responses if operation.responses is not None else {}
    responses.pop("400", None)
    responses["4XX"] = responses["5XX"] = OpenAPIResponse(
        description="Problem details (RFC 9457)",
        content={PROBLEM_JSON: OpenAPIMediaType(schema=reference(Problem))},
    )


def reference(kind: type) -> Reference:
    """Return a reference to the schema of a type."""
    return Reference(ref=f"#/components/schemas/{kind.__name__}")
