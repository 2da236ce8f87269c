"""The parts that all peers share: the framework, the request, the bundle's vectors, and the rows a context allows.

The work around the search is the least a user could do: customers' vectors are computed once at start, the rows a
context allows are looked up in the bundle's own catalogue and kept, and the answer is ids with scores. No history,
no batching, no reasons.

Letters: C customers, D dimensions, N products, K results.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import msgspec
import numpy as np
import uvicorn
import uvloop
from litestar import Litestar, Request, get, post
from litestar.datastructures import State
from msgspec import Meta, Struct
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.context import Context, Identifier
from embeddings.catalogue.eligibility import Eligibility
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import Situation, encode, situation_sizes
from embeddings.index.base import F32
from embeddings.ranking.observed import Observed
from embeddings.ranking.statistics import Statistics
from embeddings.release.bundle import Manifest, open_histories, read_manifest
from embeddings.release.encoders import CustomerEncoder
from embeddings.release.store import BundleStore

_ENCODED_AT_ONCE = 256


class PeerRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A recommend call, with the fields of the service's own."""

    context: Context
    customer_id: Identifier | None = None
    placement: Identifier | None = None
    kinds: tuple[str, ...] = ("product",)
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    exclude: tuple[Identifier, ...] = ()
    explain: bool = False


class Item(Struct, frozen=True):
    """One product."""

    id: str
    rank: int
    score: float


class Answer(Struct, frozen=True):
    """Products, the best first."""

    items: list[Item]


class Peer(Protocol):
    """One way to find the best products of a set."""

    def top(self, customer: int, eligible: EligibleSet, k: int) -> tuple[Sequence[int], Sequence[float]]:
        """Return the k best rows of a set for a customer, and their scores, the best first; the set has as many."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """The data that a peer starts from.

    Attributes:
        vectors_ND: the bundle's product vectors.
        customers_CD: every customer's vector as of the cut-off, nobody's last.
    """

    manifest: Manifest
    catalogue: Catalogue
    observed: Observed
    eligibility: Eligibility
    histories: Histories
    vectors_ND: F32
    customers_CD: F32

    @classmethod
    def open(cls, store: Path) -> Self:
        """Load the current release and encode its customers."""
        bundles = BundleStore(store)
        version = bundles.current()
        folder = bundles.bundle(version)
        manifest, catalogue = read_manifest(folder), Catalogue.load(folder / "catalogue")
        _, histories = open_histories(bundles.histories(version))
        vectors_ND: NDArray[np.float32] = np.load(folder / "vectors" / "products.npy")
        encoder = CustomerEncoder(folder / "customer.onnx", "cpu", situation_sizes(catalogue))
        everybody = [*histories.customers.ids(), None]
        situation = Situation(-1, -1, int(manifest.data_cut_off.timestamp()))
        parts = [
            encoder.encode(
                encode([histories.of(one) for one in some], [situation] * len(some), manifest.history_length),
                vectors_ND,
            )
            for start in range(0, len(everybody), _ENCODED_AT_ONCE)
            if (some := everybody[start : start + _ENCODED_AT_ONCE])
        ]
        return cls(
            manifest,
            catalogue,
            Statistics.load(folder / "statistics").observed,
            Eligibility(catalogue),
            histories,
            vectors_ND,
            np.ascontiguousarray(np.concatenate(parts)),
        )

    def customer(self, customer_id: str | None) -> int:
        """Return the row of a customer's vector; nobody's row if the customer is unknown."""
        row = None if customer_id is None else self.histories.customers.row(customer_id)
        return len(self.customers_CD) - 1 if row is None else row

    def eligible(self, context: Context) -> EligibleSet:
        """Return the product rows a context allows; raise UnknownReference if it names something unknown."""
        at = self.manifest.data_cut_off if context.at is None else context.at
        return self.eligibility.products(context, self.eligibility.place(context.location), int(at.timestamp()))


_asked = msgspec.json.Decoder(PeerRequest)


@get("/readyz")
async def readyz() -> dict[str, bool]:
    """Answer 200 once the process serves."""
    return {"ready": True}


@post("/v1/events", status_code=202)
async def events(request: Request[Any, Any, Any]) -> dict[str, int]:
    """Decode events and forget them: none of these methods has anywhere to put them."""
    msgspec.json.decode(await request.body())
    return {"accepted": 1}


@post("/v1/recommend", status_code=200)
async def recommend(request: Request[Any, Any, Any], state: State) -> Answer:
    """Return the peer's best products in the context."""
    past: Past = state.past
    peer: Peer = state.peer
    asked = _asked.decode(await request.body())
    eligible = past.eligible(asked.context)
    k = min(asked.limit, len(eligible.rows_N))
    if not k:
        return Answer([])
    rows, scores = peer.top(past.customer(asked.customer_id), eligible, k)
    ids = past.catalogue.products.ids
    found = zip(rows, scores, strict=True)
    return Answer([Item(ids.id(row), rank, score) for rank, (row, score) in enumerate(found, start=1)])


def app(past: Past, peer: Peer) -> Litestar:
    """Return an application that serves a peer."""
    return Litestar(
        [recommend, events, readyz],
        state=State({"past": past, "peer": peer}),
        logging_config=None,
        openapi_config=None,
    )


def serve(application: Litestar, port: int) -> None:
    """Serve with the settings of ``opportune-serve`` until SIGTERM."""
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=port,
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    uvloop.run(uvicorn.Server(config).serve())
