"""Every peer of the latency suite answers what the service is asked, with eligible products, on the tiny bundle."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from benchmarks.peers import PEERS, floor, stack
from benchmarks.peers.__main__ import main as peers_main
from benchmarks.peers.trivial import answer
from embeddings.catalogue.context import Context
from embeddings.index.exact import ExactIndex
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.world import UNTIL

CONTEXTS: Sequence[Mapping[str, object]] = (
    {"channel": "store", "location": "north"},
    {"channel": "store", "location": "south"},
    {"channel": "web"},
    {"channel": "mailer", "location": "north", "at": UNTIL + timedelta(hours=1)},
)


@pytest.fixture(scope="module")
def past(published: tuple[BundleStore, Manifest]) -> stack.Past:
    store, manifest = published
    return stack.Past.open(store.bundle(manifest.version).parents[1])


def ask(application: Litestar, body: Mapping[str, object]) -> dict[str, Any]:
    with TestClient(application) as client:
        response = client.post(
            "/v1/recommend", content=msgspec.json.encode(body), headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 200, response.text
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/events", content=b'{"events":[]}').status_code == 202
        return response.json()


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest, past: stack.Past) -> stack.Peer:
    return import_module(f"benchmarks.peers.{request.param.replace('-', '_')}_peer").build(past)


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda one: f"{one['channel']}-{one.get('location')}")
@pytest.mark.parametrize("customer", ["c017", None], ids=["known", "anonymous"])
def test_a_peer_answers_ten_eligible_products(
    past: stack.Past, peer: stack.Peer, context: Mapping[str, object], customer: str | None
) -> None:
    body = {"context": context, "limit": 10} | ({} if customer is None else {"customer_id": customer})
    items = ask(stack.app(past, peer), body)["items"]
    eligible = past.eligible(msgspec.convert(context, Context))
    rows = [past.catalogue.products.ids.row(item["id"]) for item in items]
    assert len(rows) == min(10, len(eligible.rows_N))
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(eligible.rows_N.tolist())
    assert [item["rank"] for item in items] == list(range(1, len(items) + 1))
    # So small a catalogue leaves even an approximate index no room for error.
    row = past.customer(customer)
    best = ExactIndex(past.vectors_ND).search(past.customers_CD[row : row + 1], 10, [eligible])
    assert [item["score"] for item in items] == pytest.approx(
        best.scores_BK[0][: len(items)].tolist(), rel=1e-4, abs=1e-6
    )


def test_nothing_eligible_is_an_empty_answer(past: stack.Past, peer: stack.Peer) -> None:
    context = {"channel": "mailer", "location": "north", "at": UNTIL + timedelta(days=300)}
    assert ask(stack.app(past, peer), {"context": context}) == {"items": []}


def test_customers_have_vectors_of_their_own_and_strangers_share_one(past: stack.Past) -> None:
    rows = [past.customer("c001"), past.customer("c002"), past.customer("nobody"), past.customer(None)]
    assert len(set(rows)) == 3
    assert rows[2] == rows[3] == len(past.customers_CD) - 1
    assert not np.array_equal(past.customers_CD[rows[0]], past.customers_CD[rows[1]])


def test_the_floor_answers_with_as_many_bytes_as_it_is_told() -> None:
    with TestClient(floor.app(700)) as client:
        response = client.post("/v1/recommend", content=b'{"context":{"channel":"web"}}')
        assert len(response.content) == 700
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {"items": []}
        # It decodes what it is sent: an empty endpoint that skipped this would be too low a floor.
        assert client.post("/v1/recommend", content=b'{"context":{"channel":"web"},"unknown":1}').status_code == 500


def test_the_trivial_answer_is_whole() -> None:
    head, _, body = answer(321).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"content-length: 321" in head
    assert len(body) == 321


def test_only_named_peers_are_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["peers", "annoy", "--port", "1", "--store", str(tmp_path)])
    with pytest.raises(SystemExit):
        peers_main()
