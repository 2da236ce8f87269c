"""Recall and violations: that a wrong answer is seen to be wrong."""

from collections.abc import Sequence
from typing import cast

import msgspec
import pytest

from benchmarks.harness.server import Served
from benchmarks.latency.fidelity import peer_fidelity
from benchmarks.latency.traffic import TrafficRequest
from benchmarks.peers import stack
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligible import EligibleSet
from embeddings.index.exact import ExactIndex
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.world import UNTIL

ASKED = TrafficRequest("c017", "store", "north", UNTIL)


class Canned:
    """A server with one answer."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._body = msgspec.json.encode({"items": [{"id": one} for one in ids]})

    def post(self, _path: str, _body: bytes) -> bytes:
        return self._body


@pytest.fixture(scope="module")
def past(published: tuple[BundleStore, Manifest]) -> stack.Past:
    store, manifest = published
    return stack.Past.open(store.bundle(manifest.version).parents[1])


def ranked(past: stack.Past, k: int, eligible: EligibleSet | None) -> list[str]:
    row = past.customer(ASKED.customer)
    found = ExactIndex(past.vectors_ND).search(past.customers_CD[row : row + 1], k, [eligible])
    return past.catalogue.products.ids.ids(found.rows_BK[0].tolist())


def test_the_true_ten_are_faultless_and_worse_ones_are_not(past: stack.Past) -> None:
    eligible = past.eligible(Context(ASKED.channel, ASKED.location, ASKED.at))
    best = ranked(past, 20, eligible)
    forbidden = [one for one in ranked(past, 120, None) if past.catalogue.products.ids.row(one) not in eligible.rows_N]
    for ids, recall, violations, short in (
        (best[:10], 1.0, 0, 0),
        (best[:5] + best[15:], 0.5, 0, 0),
        (best[:7], 0.7, 0, 1),
        (best[:9] + forbidden[:1], 0.9, 1, 0),
        ([best[0]] * 10, 0.1, 0, 0),
        ([*best[:9], "no such product"], 0.9, 1, 0),
    ):
        found = peer_fidelity(cast("Served", Canned(ids)), past, [ASKED])
        assert (found.recall, found.violations, found.short) == (recall, violations, short), ids
