"""Searches of graphs beside our index: the peers of the latency suite without their servers.

A graph finds near rows, not always the nearest, so its recall is measured with its time. Shapes: Q queries, K results.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from msgspec import Struct

from benchmarks.harness.report import Table
from benchmarks.peers import hnsw_postfilter_peer, hnswlib_callback_peer
from benchmarks.peers.stack import Past, Peer
from benchmarks.search.cells import (
    Catalogue,
    Contender,
    K,
    Repetitions,
    heat,
    interleaved,
    on_batches,
    p50,
    random_set,
    recall,
)
from embeddings.catalogue.eligible import EligibleSet
from embeddings.index.exact import ExactIndex

GRAPHS = {"hnsw": hnsw_postfilter_peer.build, "hnswlib": hnswlib_callback_peer.build}


class GraphCell(Struct, frozen=True):
    """One graph, one selectivity; queries go one by one.

    Attributes:
        selectivity: share of the rows that is eligible.
        recall: share of the true 64 found.
        us: p50 of a search in microseconds.
        hot: p50 of our index, on the same set in the same turns, in microseconds.
    """

    graph: str
    selectivity: float
    recall: float
    us: float
    hot: float


def measure_graphs(
    past: Past, catalogue: Catalogue, selectivities: Sequence[float], checked: int, effort: Repetitions
) -> Iterator[GraphCell]:
    """Yield the cells of every graph, by selectivity; sets too small for K rows are left out.

    Args:
        past: the vectors of products and customers.
        catalogue: of the same products; its index is ours.
        selectivities: above 0; 1 is a set of all rows.
        checked: how many customers' results are compared with the oracle.
        effort: of each cell.
    """
    graphs: dict[str, Peer] = {name: build(past) for name, build in GRAPHS.items()}
    rows, customers = len(past.vectors_ND), len(past.customers_CD)
    asked = np.random.default_rng(1).choice(customers, min(checked, customers), replace=False).tolist()
    for selectivity in selectivities:
        if round(rows * selectivity) < K:
            continue
        random = np.random.default_rng([rows, round(selectivity * 1e6)])
        chosen = random_set(rows, round(rows * selectivity), random)
        heat(catalogue, 1, chosen)
        true_QK = ExactIndex(past.vectors_ND).search(past.customers_CD[asked], K, [chosen] * len(asked)).rows_BK
        contenders: dict[str, Contender] = {name: _asking(graph, chosen, customers) for name, graph in graphs.items()}
        contenders["hot"] = on_batches(catalogue, 1, chosen)
        taken = {name: p50(some) for name, some in interleaved(contenders, effort, random).items()}
        for name, graph in graphs.items():
            found_QK = np.array([graph.top(customer, chosen, K)[0] for customer in asked])
            yield GraphCell(name, selectivity, round(recall(true_QK, found_QK), 5), taken[name], taken["hot"])


def print_graphs(cells: Sequence[GraphCell]) -> None:
    """Print one line a cell."""
    table = Table("graphs, p50 microseconds a query, one thread", ["graph", "share", "graph us", "hot", "recall"])
    for cell in cells:
        table.add(cell.graph, f"{cell.selectivity:g}", f"{cell.us:,.0f}", f"{cell.hot:,.0f}", f"{cell.recall:.4f}")
    table.print()


def _asking(graph: Peer, chosen: EligibleSet, customers: int) -> Contender:
    return lambda place: partial(graph.top, place % customers, chosen, K)
