"""From start to stop: health, metrics, the description of the interface, draining, and surviving a kill."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embeddings.index.base import Plan
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.integration.server import PATIENCE_SECONDS, Server, copy_store, event, eventually, ids, postgres_of
from tests.world import UNTIL, favourite

SOON = UNTIL + timedelta(hours=1)


def test_events_survive_a_kill_and_the_embedded_postgres_ends_with_the_last_server(own_store: Path):
    server = Server(own_store)
    try:
        for number in range(20):
            assert server.report(event(f"survivor-{number}", "p050", SOON))["accepted"] == 1
        server.send(signal.SIGKILL)
        server.start()
        for number in range(20):
            answer = server.recommend(f"survivor-{number}", at=SOON + timedelta(hours=1), limit=100)
            assert [item["id"] for item in answer["items"] if item["source"] == "buy_again"] == ["p050"]
        assert postgres_of(own_store)
        second = Server(own_store)
        assert server.send(signal.SIGTERM) == 0, server.log
        assert postgres_of(own_store), "somebody still needs it"
        assert second.report(event("survivor-0", "p050", SOON))["accepted"] == 1
        assert second.send(signal.SIGTERM) == 0, server.log
        assert not postgres_of(own_store)
    finally:
        server.stop()


def under_way(server: Server, body: bytes) -> socket.socket:
    """A connection whose request the service has begun to read: it said so with 100 Continue."""
    connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
    head = (
        "POST /v1/recommend HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    connection.sendall(head.encode())
    assert connection.recv(1_000).startswith(b"HTTP/1.1 100 ")
    connection.sendall(body[:10])
    return connection


def answer_of(connection: socket.socket) -> tuple[bytes, dict[str, Any]]:
    """Read to the end of the connection: the status line and the JSON."""
    received = b"".join(iter(lambda: connection.recv(2**16), b""))
    head, _, content = received.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], json.loads(content)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_under_way_be_answered_and_takes_no_more(own: Server, number: signal.Signals):
    body = b'{"customer_id": "c017", "context": {"channel": "web", "at": "2025-06-01T00:00:00Z"}}'
    connections = [under_way(own, body) for _ in range(3)]
    own.process.send_signal(number)

    def refuses() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", own.port)) != 0

    eventually(refuses, "new connections to be refused")
    assert own.process.poll() is None
    for connection in connections:
        connection.sendall(body[10:])
        status, answer = answer_of(connection)
        connection.close()
        assert status == b"HTTP/1.1 200 OK"
        assert len(answer["items"]) == 10
        assert answer["personalised"]
    assert own.ended() == 0, own.log
    assert "Traceback" not in own.log


def test_a_client_that_goes_away_in_the_middle_harms_nobody(reader: Server):
    body = b'{"customer_id": "c017", "context": {"channel": "web"}}'
    for _ in range(3):
        under_way(reader, body).close()
    assert len(ids(reader.recommend("c017"))) == 10


def test_health_and_readiness(reader: Server):
    health, ready = reader.client.get("/healthz"), reader.client.get("/readyz")
    assert (health.status_code, health.json()) == (200, {"status": "alive"})
    assert ready.status_code == 200
    told = ready.json()
    assert told.pop("catalogue_lag_seconds") >= 0
    assert told == {
        "ready": True,
        "model_version": reader.client.get("/v1/model").json()["version"],
        "catalogue_seq": 0,
        "catalogue": "follows",
        "event_store": "answers",
        "refused_events": None,
        "refused_version": None,
        "unreadable_store": None,
        "decisions": None,
        "degraded": None,
        "stale": None,
    }
    for strictly in ("strict", "strict=", "strict=true", "strict=1", "strict=false"):
        again = reader.client.get(f"/readyz?{strictly}").json()
        assert again.pop("catalogue_lag_seconds") >= 0
        assert again == told


def test_data_that_are_too_old_are_told_and_answers_are_degraded(
    published: tuple[BundleStore, Manifest], tmp_path: Path
):
    """The world's release is good for a hundred years."""
    server = Server(copy_store(published[0], tmp_path / "store"), "--clock", "replay")
    try:
        assert server.client.get("/v1/model").json()["days_old"] == 0
        assert not server.recommend("c001", at=UNTIL + timedelta(days=36_500))["degraded"]
        assert server.client.get("/readyz?strict").status_code == 200
        assert server.recommend("c001", at=UNTIL + timedelta(days=36_501))["degraded"]
        told = server.client.get("/readyz?strict")
        assert (told.status_code, "36501 days ago" in told.json()["stale"]) == (503, True)
        assert server.client.get("/readyz").status_code == 200
        model = server.client.get("/v1/model").json()
        assert (model["days_old"], model["stale_after_days"]) == (36_501, 36_500)
        assert server.metric("opportune_data_age_days") == 36_501
        # Somebody who stayed away for so long gets what they would get after the longest absence that training saw.
        assert ids(server.recommend("c001", at=UNTIL + timedelta(days=36_498)))[0] == favourite(1)
    finally:
        server.stop()


@pytest.mark.parametrize("query", ["strictly", "strict=perhaps", "strict&strict", "strict&loud=1"])
def test_readiness_refuses_a_query_that_it_does_not_know(reader: Server, query: str):
    answer = reader.client.get(f"/readyz?{query}")
    assert answer.status_code == 422
    assert answer.json()["field"] in {"strictly", "strict", "loud"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz?strict", "/metrics", "/v1/model", "/openapi.json"])
def test_head_answers_as_get_does_without_the_body(reader: Server, path: str):
    head, get = reader.client.head(path), reader.client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    with socket.create_connection(("127.0.0.1", reader.port), PATIENCE_SECONDS) as connection:
        for last in (False, True):  # two on one connection: what follows the headers is the next answer
            close = "Connection: close\r\n" if last else ""
            connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: test\r\n{close}\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(2**16), b""))
    first, second, rest = received.split(b"\r\n\r\n")
    assert rest == b""
    for one in (first, second):
        assert one.startswith(b"HTTP/1.1 200 OK\r\n")


def test_head_of_a_route_that_takes_a_body_is_not_allowed(reader: Server):
    answer = reader.client.head("/v1/recommend")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_metrics_can_be_read_and_count_by_route_and_status(reader: Server):
    def requests(route: str, status: int) -> float:
        return reader.metric("opportune_request_seconds_count", route=route, status=str(status)) or 0

    similar = "/v1/products/{product_id}/similar"
    watched = [("/v1/recommend", 200), ("/v1/recommend", 422), (similar, 200), (similar, 404), ("unmatched", 404)]
    before = [requests(*one) for one in watched]
    reader.recommend("c017")
    reader.client.post("/v1/recommend", json={})
    reader.client.get("/v1/products/p000/similar")
    reader.client.get("/v1/products/p999/similar")
    reader.client.get("/secret/path")
    assert [requests(*one) for one in watched] == [one + 1 for one in before]

    page = reader.client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(page.text))
    routes = {sample.labels["route"] for family in families for sample in family.samples if "route" in sample.labels}
    assert not [route for route in routes if "p000" in route or "p999" in route or "secret" in route]
    version = reader.client.get("/v1/model").json()["version"]
    assert reader.metric("opportune_model", version=version) == 1
    assert reader.metric("opportune_model_refused") == 0


def test_batches_and_index_searches_are_counted(reader: Server):
    names = ("opportune_batches_total", "opportune_batched_requests_total")
    reader.recommend(None, "store", "south")  # from now on it is remembered, whoever asked before
    before = [reader.metric(name) or 0 for name in names]
    reader.recommend("c017", "store", "south")
    reader.recommend("c017", "store", "south")
    reader.recommend(None, "store", "south")  # no batch is needed
    assert [reader.metric(name) for name in names] == [one + 2 for one in before]
    searches = [reader.metric("opportune_index_searches_total", index="products", plan=plan) for plan in get_args(Plan)]
    assert sum(one or 0 for one in searches) >= 2
    assert (reader.metric("opportune_index_bytes", index="products") or 0) > 0


# The description of the interface


@pytest.fixture(scope="module")
def described(reader: Server) -> dict[str, Any]:
    answer = reader.client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def values(node: object, key: str) -> Iterator[object]:
    """Everything that stands under a key, anywhere."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from values(value, key)


def resolve(described: dict[str, Any], reference: str) -> dict[str, Any]:
    node: Any = described
    assert reference.startswith("#/")
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_it_describes_every_path_with_its_methods(described: dict[str, Any]):
    assert described["openapi"].startswith("3.")
    assert {path: set(operations) for path, operations in described["paths"].items()} == {
        "/v1/recommend": {"post"},
        "/v1/events": {"post"},
        "/v1/recommendations/{recommendation_id}": {"get"},
        "/v1/products/{product_id}/similar": {"get"},
        "/v1/model": {"get"},
        "/healthz": {"get"},
        "/readyz": {"get"},
        "/metrics": {"get"},
    }


def test_it_describes_readiness_whatever_its_status(described: dict[str, Any]):
    responses = described["paths"]["/readyz"]["get"]["responses"]
    assert responses["200"] == responses["503"]


def test_it_describes_bodies_with_their_fields_and_bounds(described: dict[str, Any]):
    def body(path: str) -> dict[str, Any]:
        request = described["paths"][path]["post"]["requestBody"]
        assert request["required"]
        return resolve(described, request["content"]["application/json"]["schema"]["$ref"])

    recommend = body("/v1/recommend")
    assert set(recommend["properties"]) == {
        "customer_id",
        "attributes",
        "placement",
        "placements",
        "kinds",
        "context",
        "limit",
        "exclude",
        "filter_already_bought",
        "filters",
        "items",
        "explain",
        "include",
        "at_least",
        "dry_run",
        "novel",
        "among",
    }
    assert {name for name, one in recommend["properties"].items() if one.get("deprecated")} == {"novel", "among"}
    assert recommend["required"] == ["context"]
    assert not recommend["additionalProperties"]
    limit = recommend["properties"]["limit"]
    assert (limit["minimum"], limit["maximum"]) == (1, 100)
    events = body("/v1/events")["properties"]["events"]
    assert (events["minItems"], events["maxItems"]) == (1, 1_000)


def test_it_describes_the_query_of_similar(described: dict[str, Any]):
    parameters = described["paths"]["/v1/products/{product_id}/similar"]["get"]["parameters"]
    assert {(one["name"], one["in"]): one["required"] for one in parameters} == {
        ("product_id", "path"): True,
        ("relation", "query"): False,
        ("limit", "query"): False,
        ("channel", "query"): False,
        ("location", "query"): False,
        ("include", "query"): False,
    }
    (limit,) = [one["schema"] for one in parameters if one["name"] == "limit"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 100, 10)


def test_it_describes_answers_and_problems(described: dict[str, Any]):
    promised = [operations for path, operations in described["paths"].items() if path.startswith("/v1/")]
    for operations in promised:
        for operation in operations.values():
            problem = operation["responses"]["4XX"]["content"]["application/problem+json"]["schema"]["$ref"]
            assert set(resolve(described, problem)["properties"]) == {
                "type",
                "title",
                "status",
                "detail",
                "field",
                "errors",
                "errors_left_out",
            }
    answers = described["paths"]["/v1/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    one, several = (resolve(described, answer["$ref"])["properties"] for answer in answers["oneOf"])
    assert "recommendation_id" in one
    assert set(several) == {"placements"}


def test_every_reference_leads_somewhere_and_none_leads_away(described: dict[str, Any]):
    references = [str(one) for one in values(described, "$ref")]
    assert references
    for reference in references:
        assert resolve(described, reference)
    assert not re.findall(r"https?://", json.dumps(described))
