"""The application of the management API: its calls, error answers and description."""

from collections.abc import Sequence

from litestar import Litestar
from litestar.types import ASGIApp

from serving.api.description import openapi_config
from serving.api.health import headed, healthz
from serving.api.problems import answer_error
from serving.management import catalogue, offers, openapi, releases, runs
from serving.management.calls import Call, route
from serving.management.database import CatalogueDatabase
from serving.management.editor import Editor
from serving.management.hosts import is_loopback, local_only
from serving.management.releases import Releases


def create_app(host: str, database: CatalogueDatabase, store: Releases) -> ASGIApp:
    """Put the management API together.

    Args:
        host: where it listens.
        database: PostgreSQL, connected before the application answers.
        store: the published releases.
    """
    editor = Editor(database, store)
    calls: Sequence[Call] = [
        *offers.calls(editor),
        *catalogue.calls(editor),
        *releases.calls(store),
        *runs.calls(database),
    ]
    app = Litestar(
        [route(calls), healthz],
        middleware=[local_only] if is_loopback(host) else [],
        exception_handlers={Exception: answer_error},
        logging_config=None,
        openapi_config=openapi_config("Opportune: management", "Master data, offers, releases and runs of training."),
    )
    openapi.describe(app, calls)
    return headed(app)
