"""What ``/metrics`` says of indexes whose sets do not all fit the cache."""

import numpy as np
import pytest

from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.index.ivf import Selection
from embeddings.index.planned import PlannedIndex
from serving.metrics import index_figures

VECTORS_ND = np.random.default_rng(4).standard_normal((5_000, 8)).astype(np.float32)


def every(step: int, start: int) -> EligibleSet:
    return EligibleSet.of(np.arange(start, len(VECTORS_ND), step, dtype=np.int32), FOREVER)


@pytest.mark.parametrize(("room_for", "held", "evicted", "oversize"), [(2.0, 2, 1, 0), (1.0, 1, 2, 0), (0.5, 0, 0, 3)])
def test_sets_that_found_no_room_are_counted(room_for: float, held: int, evicted: int, oversize: int):
    selections = {one.fingerprint: Selection(one, len(VECTORS_ND)) for one in (every(10, start) for start in range(3))}
    bytes_of_one = next(iter(selections.values())).nbytes
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=int(room_for * bytes_of_one))
    for fingerprint, selection in selections.items():
        index.cache.keep(fingerprint, selection)
    for fingerprint in selections:
        index.cache.find(fingerprint)
    figures = {
        sample.name.removeprefix("opportune_index_"): sample.value
        for family in index_figures({"products": index})
        for sample in family.samples
        if sample.labels == {"index": "products"}
    }
    assert figures == {
        "hits_total": held,
        "misses_total": 3 - held,
        "evicted_total": evicted,
        "oversize_total": oversize,
        "bytes": held * bytes_of_one,
    }
