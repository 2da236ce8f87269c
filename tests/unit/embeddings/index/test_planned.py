"""What is PlannedIndex' own: what it holds, renting before buying, its counters, and a failing device."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from embeddings import kernel
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.errors import DeviceUnavailable, InvalidInput, UnsupportedSearch
from embeddings.index import cuda
from embeddings.index.exact import ExactIndex
from embeddings.index.ivf import write_ivf
from embeddings.index.plan import MEASURED, Costs, ExtraCosts
from embeddings.index.planned import PlannedIndex

VECTORS_ND = np.random.default_rng(2).standard_normal((6_000, 16)).astype(np.float32)
QUERIES_BD = np.random.default_rng(3).standard_normal((4, 16)).astype(np.float32)
BYTES_OF_600 = 19 * (32 * (16 + 12) + 4) + 600 * 4
"""Of a set of 600 rows: blocks of 32 rows, each with sixteen codes, two scales and the length of its tail; the longest
length of a block; row numbers."""
BYTES_OF_ALL = kernel.QuantisedSet.bytes_of(len(VECTORS_ND), VECTORS_ND.shape[1])
SCORED_NEVER = replace(MEASURED, score_ns=1e18)
AT_ONCE = replace(SCORED_NEVER, gather_ns=-1.0, sifted_ns=-1.0, taken_ns=0.0)
NEVER = replace(SCORED_NEVER, gather_ns=1e18, sifted_ns=1e18)
# Of 600 rows among 6,000, a scan of all under a mask costs 6 us more than one of their copy, which costs 15 us to make.
BY_THE_THIRD = replace(
    SCORED_NEVER, scan_ns=0.0, masked_ns=10**-0.5, mask_us=0.0, gather_ns=25.0, sifted_ns=2.5, taken_ns=0.0
)


def every(step: int, start: int = 0) -> EligibleSet:
    return EligibleSet.of(np.arange(start, len(VECTORS_ND), step), FOREVER)


def assert_exact(index: PlannedIndex, k: int, eligible: EligibleSet | None = None) -> None:
    found = index.search(QUERIES_BD, k, [eligible] * 4)
    expected = ExactIndex(VECTORS_ND).search(QUERIES_BD, k, [eligible] * 4)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)
    assert found.scores_BK.tobytes() == expected.scores_BK.tobytes()


def extra_of(index: PlannedIndex) -> ExtraCosts:
    return index._search._extra  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownVariableType]


def plan_of(index: PlannedIndex, eligible: EligibleSet | None, queries: int = 1) -> str:
    return index.search(QUERIES_BD[:queries], 5, [eligible] * queries).plans_B[0]


def test_copies_are_cached_by_fingerprint_within_the_bound():
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=BYTES_OF_ALL + 2 * BYTES_OF_600, costs=AT_ONCE)
    index.search(QUERIES_BD, 5, [None] * 4)
    for start in (0, 1, 0, 2, 1):
        assert plan_of(index, every(10, start)) == "own"
    cache = index.cache
    assert (cache.hits, cache.misses, cache.evicted, cache.bytes) == (1, 4, 2, BYTES_OF_ALL + 2 * BYTES_OF_600)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_a_copy_on_a_device_is_of_the_set_s_own_rows(size: float):
    index = PlannedIndex((size * VECTORS_ND).astype(np.float32), "cuda")
    narrow = EligibleSet.of(np.arange(0, 6_000, 10, dtype=np.int32), FOREVER)
    index.warm(narrow)
    assert index.cache.bytes == 600 * (16 * (2 if size == 1 else 4) + 4)
    held = index.cache.find(narrow.fingerprint)
    assert isinstance(held, cuda.OwnCopy)
    assert held.rows_N is narrow.rows_N


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("added", [1, 40])
def test_on_a_device_rows_beside_a_copy_are_scored_and_the_others_proposed(added: int):
    index = PlannedIndex(VECTORS_ND, "cuda")
    derived = EligibleSet.derived(every(2), np.arange(0, 60, 2), np.arange(1, 2 * added, 2))
    assert plan_of(index, derived) == "masked"
    for k in (1, 5, 50):
        assert_exact(index, k, derived)


def test_a_set_is_masked_out_of_all_rows_until_that_would_cost_more_than_a_copy_of_its_own():
    index = PlannedIndex(VECTORS_ND, "cpu", costs=BY_THE_THIRD)
    assert [plan_of(index, every(10)) for _ in range(4)] == ["whole", "whole", "own", "own"]
    assert plan_of(index, every(10, 1), queries=2) == "whole"  # two queries at once cost twice as much
    assert index.cache.bytes == BYTES_OF_ALL + BYTES_OF_600
    assert plan_of(index, every(10, 1)) == "own"
    assert index.cache.bytes == BYTES_OF_ALL + 2 * BYTES_OF_600
    assert index.searches == {"whole": 4, "own": 3}


def test_rows_that_are_scored_sooner_than_anything_is_scanned_are_scored():
    index = PlannedIndex(VECTORS_ND, "cpu", costs=replace(MEASURED, score_ns=0.0))
    for eligible in (every(10), EligibleSet.derived(every(2), np.arange(100))):
        assert plan_of(index, eligible) == "brute_force"
        assert_exact(index, 5, eligible)
    assert (len(index.cache), len(extra_of(index))) == (0, 2)


# Parts of sets, which one request wants for itself

PARTS: dict[str, Callable[[EligibleSet, np.random.Generator], EligibleSet]] = {
    "without": lambda parent, random: EligibleSet.derived(parent, random.choice(len(VECTORS_ND), 300)),
    "among": lambda parent, random: parent.among(random.choice(len(VECTORS_ND), 5_000)),
}
MASKED = AT_ONCE


def test_a_part_of_the_first_rows_is_masked_out_of_all_rows_without_those_behind_it():
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=BYTES_OF_ALL, costs=replace(SCORED_NEVER, masked_ns=0.0))
    part = EligibleSet.derived(EligibleSet.of(np.arange(5_990), FOREVER), np.arange(5_900))
    assert plan_of(index, part) == "whole"
    assert_exact(index, 90, part)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_answered_from_the_copy_of_its_set_without_being_listed(part: str):
    index = PlannedIndex(VECTORS_ND, "cpu", costs=MASKED)
    rest = PARTS["without"](every(2), np.random.default_rng(0))
    assert plan_of(index, rest, queries=2) == "masked"
    assert "rows_N" not in vars(rest)
    assert (len(index.cache), index.cache.bytes) == (1, kernel.QuantisedSet.bytes_of(3_000, 16))
    assert plan_of(index, every(2)) == "own"  # which the part has made
    assert plan_of(index, PARTS[part](every(1), np.random.default_rng(0))) == "whole"
    assert_exact(index, 5, rest)


@pytest.mark.parametrize("part", PARTS)
def test_parts_count_for_their_set(part: str):
    index = PlannedIndex(VECTORS_ND, "cpu", costs=BY_THE_THIRD)
    random = np.random.default_rng(0)
    plans = [plan_of(index, PARTS[part](every(10), random)) for _ in range(6)]
    assert plans == sorted(plans, reverse=True)
    assert set(plans) == {"whole", "masked"}
    assert plan_of(index, every(10)) == "own"
    assert (len(index.cache), index.cache.bytes) == (1, BYTES_OF_ALL + BYTES_OF_600)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("costs", [MEASURED, MASKED, NEVER])
def test_thousands_of_parts_leave_the_cache_as_it_was(part: str, costs: Costs):
    parents, random = [every(2), every(3), every(1)], np.random.default_rng(0)
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=3 * BYTES_OF_ALL, costs=costs)
    for parent in 20 * parents:  # until those have copies that are to have one
        index.search(QUERIES_BD, 5, [parent] * 4)
    held, bytes_held = len(index.cache), index.cache.bytes
    parts = [PARTS[part](parents[turn % 3], random) for turn in range(2_000)]
    for turn, one in enumerate(parts):
        index.search(QUERIES_BD[:1], 5, [one])
        assert len(extra_of(index)) <= len(parents)
        if turn % 500 == 0:
            assert_exact(index, 5, one)
    cache = index.cache
    assert (len(cache), cache.bytes, cache.evicted, cache.oversize) == (held, bytes_held, 0, 0)


@pytest.mark.parametrize("cache_bytes", [BYTES_OF_ALL + BYTES_OF_600, 0])
def test_a_part_of_a_set_whose_copy_is_not_held_is_exact(cache_bytes: int):
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=cache_bytes, costs=MASKED)
    index.search(QUERIES_BD, 5, [None] * 4)
    one, other = every(10), every(10, 1)
    for parent in (one, other, one):  # each drives out the one before
        part = EligibleSet.derived(parent, parent.rows_N[:100])
        assert_exact(index, 5, part)
        assert plan_of(index, part) == ("masked" if cache_bytes else "whole")


@pytest.mark.parametrize("taken_ns", [0.0, 1e9])
def test_a_copy_is_taken_out_of_that_of_all_rows_where_that_is_held_and_cheaper(taken_ns: float):
    index = PlannedIndex(VECTORS_ND, "cpu", costs=replace(SCORED_NEVER, sifted_ns=0.0, taken_ns=taken_ns))
    index.warm(every(7))
    assert index.cache.bytes == kernel.QuantisedSet.bytes_of(858, 16)  # none of all rows was made for it
    index.search(QUERIES_BD, 5, [None] * 4)
    looked = index.cache.hits, index.cache.misses
    index.warm(every(10))
    assert (index.cache.hits, index.cache.misses) == (looked[0], looked[1] + 1)
    for eligible in (every(7), every(10)):
        assert plan_of(index, eligible) == "own"
        assert_exact(index, 5, eligible)


def test_a_set_whose_copy_was_dropped_is_masked_again():
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=BYTES_OF_ALL + BYTES_OF_600, costs=BY_THE_THIRD)
    index.search(QUERIES_BD, 5, [None] * 4)
    for _ in range(2):
        index.search(QUERIES_BD, 5, [every(10)] * 4)
    index.warm(every(10, 1))
    assert [plan_of(index, every(10)) for _ in range(3)] == ["whole", "whole", "own"]


def test_a_set_larger_than_the_cache_gets_no_copy():
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=BYTES_OF_600, costs=AT_ONCE)
    index.warm(every(9))
    assert [plan_of(index, every(9)) for _ in range(3)] == ["whole"] * 3
    assert (len(index.cache), index.cache.oversize) == (0, 0)


def test_warming_gathers_at_once():
    index = PlannedIndex(VECTORS_ND, "cpu", costs=NEVER)
    for _ in range(2):
        index.warm(every(10))
    assert plan_of(index, every(10)) == "own"
    index.warm(every(1))
    assert index.cache.bytes == BYTES_OF_600
    with pytest.raises(InvalidInput, match="rows"):
        index.warm(EligibleSet.of(np.array([6_000]), FOREVER))


def test_small_sets_are_not_looked_for_in_the_cache():
    index = PlannedIndex(VECTORS_ND, "cpu")
    index.search(QUERIES_BD, 5, [every(600)] * 4)
    assert (index.cache.hits, index.cache.misses, index.cache.bytes) == (0, 0, 0)
    assert index.searches == {"brute_force": 4}


@pytest.mark.parametrize("cache_bytes", [3 * BYTES_OF_ALL, BYTES_OF_600])
def test_all_rows_have_one_copy_made_at_once_whatever_the_bound(cache_bytes: int):
    index = PlannedIndex(VECTORS_ND, "cpu", cache_bytes=cache_bytes)
    for eligible in (None, every(1), None):
        assert plan_of(index, eligible) == "whole"
    assert (index.cache.hits, index.cache.misses, len(index.cache)) == (0, 0, 0)
    assert index.cache.bytes == BYTES_OF_ALL
    assert index.cache.room == max(cache_bytes - BYTES_OF_ALL, 0)


def test_where_the_copy_of_all_rows_does_not_fit_the_inverted_file_answers(tmp_path: Path):
    write_ivf(VECTORS_ND, tmp_path / "products.ivf.faiss")
    small, large = (
        PlannedIndex(VECTORS_ND, "cpu", cache_bytes=size, ivf=tmp_path / "products.ivf.faiss", costs=NEVER)
        for size in (BYTES_OF_ALL - 1, BYTES_OF_ALL)
    )
    for eligible in (None, every(2), EligibleSet.derived(every(2), np.arange(100))):
        assert (plan_of(small, eligible), plan_of(large, eligible)) == ("ivf", "whole")
        assert_exact(small, 5, eligible)
    assert small.cache.bytes == 6_000 // 8  # which rows of the file are of the set


def test_vectors_that_are_not_finite_are_refused_at_once():
    poisoned_ND = VECTORS_ND.copy()
    poisoned_ND[77, 3] = np.inf
    with pytest.raises(InvalidInput, match="row 77 "):
        PlannedIndex(poisoned_ND, "cpu")


def test_a_negative_bound_is_refused():
    with pytest.raises(InvalidInput, match="cache_bytes"):
        PlannedIndex(VECTORS_ND, "cpu", cache_bytes=-1)


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    with pytest.raises(DeviceUnavailable, match=r"opportune\[gpu\]"):
        PlannedIndex(VECTORS_ND, "cuda")


class Device:
    """A GPU's rules with FAISS' CPU index standing in for the GPU's, until it is broken."""

    def __init__(self) -> None:
        self.broken = False

    def index(self, vectors_ND: npt.NDArray[np.float32], resources: object, halved: bool) -> Any:
        if self.broken:
            raise RuntimeError("Error: out of memory")
        assert resources is not None
        device, copies_ND = self, vectors_ND.astype(np.float16 if halved else np.float32).astype(np.float32)

        class OnDevice:
            def __init__(self) -> None:
                self.copies = faiss.IndexFlatIP(vectors_ND.shape[1])
                self.copies.add(copies_ND)

            def search(self, queries_BD: npt.NDArray[np.float32], k: int) -> Any:
                if device.broken:
                    raise RuntimeError("CUDA error 700: an illegal memory access")
                assert k <= cuda.CUDA_MAX_K
                half_BD = queries_BD.astype(np.float16 if halved else np.float32).astype(np.float32)
                assert np.isfinite(half_BD).all()
                return self.copies.search(half_BD, k)

        return OnDevice()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    stand_in = Device()
    monkeypatch.setattr(cuda, "cuda_resources", object)
    monkeypatch.setattr(cuda, "gpu_index", stand_in.index)
    return stand_in


@pytest.mark.usefixtures("device")
def test_cuda_answers_up_to_what_it_can_settle():
    index = PlannedIndex(VECTORS_ND, "cuda")
    for k in (1, 1_000, 2_000):
        assert_exact(index, k)
    assert_exact(index, 9_000, every(3))
    assert_exact(index, 10, every(3))
    assert index.searches == {"flat": 12, "brute_force": 4, "own": 4}


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("removed", [10, 1_500, 2_900])
def test_cuda_drops_what_is_not_of_a_part(removed: int):
    """More than the device can propose is scored row by row in the end."""
    index = PlannedIndex(VECTORS_ND, "cuda", costs=MASKED)
    nearest_N = np.argsort(-VECTORS_ND @ QUERIES_BD[0], kind="stable")
    for parent, plan in ((every(2), "masked"), (every(1), "flat")):
        part = EligibleSet.derived(parent, nearest_N[:removed])
        assert_exact(index, 10, part)
        assert plan_of(index, part) == plan
    assert len(index.cache) == 1


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e6, 1e30])
def test_cuda_scales_queries_that_half_precision_could_not_hold(size: float):
    queries_BD = np.concatenate([size * QUERIES_BD, np.zeros((1, 16))]).astype(np.float32)
    found = PlannedIndex(VECTORS_ND, "cuda").search(queries_BD, 20, [every(2)] * 5)
    expected = ExactIndex(VECTORS_ND).search(queries_BD, 20, [every(2)] * 5)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)


@pytest.mark.usefixtures("device")
def test_cuda_holds_full_precision_where_half_cannot():
    vectors_ND = 1e6 * VECTORS_ND
    found = PlannedIndex(vectors_ND, "cuda").search(QUERIES_BD, 20, [None] * 4)
    np.testing.assert_array_equal(found.rows_BK, ExactIndex(vectors_ND).search(QUERIES_BD, 20, [None] * 4).rows_BK)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("k", [2_048, 2_049, 2_999])
def test_cuda_refuses_a_k_it_cannot_settle(k: int):
    index = PlannedIndex(VECTORS_ND, "cuda")
    with pytest.raises(UnsupportedSearch, match="2048"):
        index.search(QUERIES_BD, k, [None] * 4)
    assert index.degraded is None


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("copies", [1_900, 2_100])
def test_cuda_widens_ties_up_to_its_limit(copies: int):
    vectors_ND = VECTORS_ND.copy()
    vectors_ND[:copies] = 10 * QUERIES_BD[0]
    index = PlannedIndex(vectors_ND, "cuda")
    if copies < 2_048:
        assert (index.search(QUERIES_BD[:1], 10, [None]).rows_BK == np.arange(10)).all()
    else:
        with pytest.raises(UnsupportedSearch):
            index.search(QUERIES_BD[:1], 10, [None])


@pytest.mark.usefixtures("device")
def test_a_set_too_large_to_keep_is_gathered_on_the_device_each_time():
    index = PlannedIndex(VECTORS_ND, "cuda", cache_bytes=BYTES_OF_600)
    for _ in range(2):
        assert plan_of(index, every(2)) == "own"
    assert (index.cache.bytes, index.cache.oversize) == (0, 2)


@pytest.mark.parametrize("failing", [None, every(10), every(10, 1)], ids=["scan", "scan of a copy", "gathering"])
def test_a_device_that_fails_is_replaced_by_the_cpu_within_the_search(
    failing: EligibleSet | None, device: Device, tmp_path: Path
):
    write_ivf(VECTORS_ND, tmp_path / "products.ivf.faiss")
    ivf = tmp_path / "products.ivf.faiss"
    index = PlannedIndex(VECTORS_ND, "cuda", cache_bytes=2 * BYTES_OF_600, ivf=ivf, costs=AT_ONCE)
    assert_exact(index, 5, every(10))
    assert index.degraded is None
    device.broken = True
    assert_exact(index, 5, failing)
    assert index.degraded is not None
    assert "memory" in index.degraded
    device.broken = False  # what has failed is not trusted again
    index.searches.clear()
    assert_exact(index, 5)
    assert_exact(index, 5, every(10, 2))
    assert index.searches == {"ivf": 4, "own": 4}


def test_a_device_that_fails_while_warming_is_replaced(device: Device):
    index = PlannedIndex(VECTORS_ND, "cuda")
    device.broken = True
    index.warm(every(10))
    assert index.degraded == "Error: out of memory"
    assert plan_of(index, every(10)) == "own"


def test_what_is_raised_on_the_cpu_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    index = PlannedIndex(VECTORS_ND, "cpu")

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(kernel, "nearest", fail)
    with pytest.raises(RuntimeError, match="broken"):
        index.search(QUERIES_BD, 5, [None] * 4)
    assert index.degraded is None
