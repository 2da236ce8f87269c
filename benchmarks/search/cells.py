"""Cells of the search suite: the ways that are timed, the sets they search, and the right answers.

Shapes: B queries of a call, D dimensions, K results, N rows of a set, Q queries to draw from, R repetitions.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from msgspec import Struct
from numpy.random import Generator

from benchmarks.peers.flat_bitmap_peer import selecting
from benchmarks.search.outcome import Cell, Growth
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.index.base import F32, I64, PAD_ROW, PAD_SCORE
from embeddings.index.exact import ExactIndex
from embeddings.index.host import principal_rotation
from embeddings.index.planned import PlannedIndex
from embeddings.index.score import inner_products, max_norm

_faiss: Any = faiss  # its type hints know the C++ constructors only

K = 64
_CHUNK = 250_000
_EXACT_ROWS = 2_000_000
"""Beyond this the oracle's copy of the vectors would crowd out what is measured, and it goes chunk by chunk."""
_LEVELS, _ROWS_A_BLOCK = 4, 512
"""Of Panorama: of 2 to 16 levels and 128 to 2,048 rows, the fastest on the vectors of the suites' own release."""
_MOST_HEATING = 100
_LONG_NS = 10_000_000
_PATIENCE = 10

Ready = Callable[[], object]
"""A call that is ready to be timed."""
Contender = Callable[[int], Ready]
"""Makes the call of this number ready; what that takes is not timed."""


class Repetitions(Struct, frozen=True):
    """How often a cell is measured: until the seconds are over, but at least and at most this often.

    Where calls are so long that the least takes ten times the seconds, one repetition will do.
    """

    seconds: float
    least: int
    most: int

    @property
    def calls(self) -> int:
        """Return the most calls `interleaved` makes of a contender: two a repetition, and two that do not count."""
        return 2 * (self.most + 1)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Vectors to search in, our index of them, and queries.

    Attributes:
        name: how many rows, and whether real or generated.
        vectors_ND: float32, the generated ones memory-mapped.
        queries_QD: float32; Q is a multiple of every batch size.
        ivf: the bounded IVF that the index has; None if it has none.
    """

    name: str
    vectors_ND: F32
    queries_QD: F32
    index: PlannedIndex
    ivf: Path | None = None

    def batch(self, place: int, size: int) -> F32:
        """Return the place-th batch; start over where the queries end."""
        start = place * size % len(self.queries_QD)
        return self.queries_QD[start : start + size]


def flat_index(vectors_ND: F32, eligible: EligibleSet | None = None) -> Any:
    """Return FAISS flat, float32, over copies of these vectors, or of a set's."""
    index: Any = faiss.IndexFlatIP(vectors_ND.shape[1])
    # At once: FAISS would copy everything again each time it outgrows its memory.
    index.add(np.ascontiguousarray(vectors_ND if eligible is None else vectors_ND[eligible.rows_N]))
    return index


def panorama_index(vectors_ND: F32, eligible: EligibleSet | None = None) -> Any:
    """Return FAISS Panorama, float32, over copies of these vectors, or of a set's, turned to their principal axes.

    It is exact: it reads the first axes of every row, where most of a product lies, and the others only of rows that
    can still be among the best. A rotation leaves inner products as they are.
    """
    kept_ND = np.ascontiguousarray(vectors_ND if eligible is None else vectors_ND[eligible.rows_N])
    dimensions = vectors_ND.shape[1]
    rotation = _faiss.LinearTransform(dimensions, dimensions, False)
    axes_DD = principal_rotation(kept_ND, max_norm(kept_ND))
    _faiss.copy_array_to_vector(np.ascontiguousarray(axes_DD.T).ravel(), rotation.A)
    rotation.is_trained = rotation.is_orthonormal = True
    index = _faiss.IndexPreTransform(rotation, _faiss.IndexFlatIPPanorama(dimensions, _LEVELS, _ROWS_A_BLOCK))
    index.add(kept_ND)
    return index


def random_set(rows: int, size: int, random: Generator) -> EligibleSet:
    """Return a set of exactly ``size`` random rows."""
    chosen_N = random.choice(rows, size, replace=False, shuffle=False).astype(np.int32)
    chosen_N.sort()
    return EligibleSet.of(chosen_N, FOREVER)


def shifted(eligible: EligibleSet, by: int, rows: int) -> EligibleSet:
    """Return the set with all rows moved up, around the end.

    It is as random and as large, without drawing millions of rows again.
    """
    moved_N = eligible.rows_N.astype(np.int64) + by
    wrapped = int(moved_N.searchsorted(rows))
    return EligibleSet.of(np.concatenate([moved_N[wrapped:] - rows, moved_N[:wrapped]]).astype(np.int32), FOREVER)


def fresh_sets(eligible: EligibleSet, rows: int, most: int, random: Generator) -> Iterator[EligibleSet]:
    """Yield sets of the same size that nobody has seen, each once: so many, or as many as there are."""
    for by in random.choice(rows - 1, min(most, rows - 1), replace=False).tolist():
        yield shifted(eligible, by + 1, rows)


def oracle(vectors_ND: F32, queries_BD: F32, k: int, eligible: EligibleSet | None, chunk: int = _CHUNK) -> I64:
    """Return the rows (B, k) of `ExactIndex`, scored chunk by chunk to avoid a copy of the whole catalogue."""
    count = len(vectors_ND) if eligible is None else len(eligible.rows_N)
    rows_BK = np.full((len(queries_BD), k), PAD_ROW, np.int64)
    scores_BK = np.full((len(queries_BD), k), PAD_SCORE, np.float32)
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        rows_N = np.arange(start, stop) if eligible is None else eligible.rows_N[start:stop].astype(np.int64)
        scores_BN = inner_products(queries_BD, np.ascontiguousarray(vectors_ND[rows_N])[None])
        # What was best so far has lower rows and stands in front: a stable sort leaves ties by row.
        rows_BM = np.concatenate([rows_BK, np.broadcast_to(rows_N, scores_BN.shape)], axis=1)
        scores_BM = np.concatenate([scores_BK, scores_BN], axis=1)
        order_BK = np.argsort(-scores_BM, axis=1, kind="stable")[:, :k]
        rows_BK = np.take_along_axis(rows_BM, order_BK, axis=1)
        scores_BK = np.take_along_axis(scores_BM, order_BK, axis=1)
    return rows_BK


def truth(catalogue: Catalogue, eligible: EligibleSet | None, checked: int) -> I64:
    """Return the right rows (checked, K) of the first queries."""
    queries_BD = catalogue.queries_QD[:checked]
    if len(catalogue.vectors_ND) > _EXACT_ROWS:
        return oracle(catalogue.vectors_ND, queries_BD, K, eligible)
    return ExactIndex(catalogue.vectors_ND).search(queries_BD, K, [eligible] * checked).rows_BK


def recall(true_BK: I64, found_BK: I64) -> float:
    """Return the share of the true rows that was found, pads left out; 1 if there are none."""
    wanted = int((true_BK >= 0).sum())
    pairs = zip(true_BK, found_BK, strict=True)
    found = sum(len(np.intersect1d(true_K[true_K >= 0], found_K)) for true_K, found_K in pairs)
    return found / wanted if wanted else 1.0


def searched(
    index: PlannedIndex, queries_QD: F32, batch: int, checked: int, eligible: EligibleSet | None
) -> tuple[I64, list[str]]:
    """Search the first ``checked`` queries in batches; return their rows (checked, K) and the plans of each call."""
    found = [
        index.search(queries_QD[start : start + batch], K, [eligible] * batch) for start in range(0, checked, batch)
    ]
    rows_BK = np.concatenate([one.rows_BK for one in found])[:checked]
    return rows_BK, ["+".join(sorted(set(one.plans_B))) for one in found]


def heat(catalogue: Catalogue, batch: int, eligible: EligibleSet | None) -> None:
    """Search a set as in service until the index has a copy of it, but at most ``_MOST_HEATING`` times."""
    for place in range(_MOST_HEATING):
        plans_B = catalogue.index.search(catalogue.batch(place, batch), K, [eligible] * batch).plans_B
        if not {"whole", "ivf", "brute_force"} & set(plans_B):
            return


def interleaved(contenders: Mapping[str, Contender], effort: Repetitions, random: Generator) -> dict[str, list[int]]:
    """Measure the nanoseconds of every repetition, by contender.

    In each repetition every contender has one turn, so a machine that slows down slows all. The order changes, so none
    always follows the same one. A turn is two calls, and the second counts: the first brings back into the caches what
    the others' turns have driven out. Else contenders that share memory with others would gain. A long call walks more
    memory than caches hold, so it counts, and no second follows. Turns of the first repetition do not count, unless
    they are long.
    """
    names = list(contenders)
    taken: dict[str, list[int]] = {name: [] for name in names}
    begin = time.perf_counter()
    for repetition in range(effort.most + 1):
        for place in random.permutation(len(names)).tolist():
            nanoseconds = _turn(contenders[names[place]], repetition)
            if repetition or nanoseconds > _LONG_NS:
                taken[names[place]].append(nanoseconds)
        elapsed = time.perf_counter() - begin
        fewest = min(len(some) for some in taken.values())
        if fewest and elapsed > effort.seconds and (fewest >= effort.least or elapsed > _PATIENCE * effort.seconds):
            break
    return taken


def _turn(contender: Contender, repetition: int) -> int:
    """Return the nanoseconds of the last call of a turn."""
    taken = 0
    for place in (2 * repetition, 2 * repetition + 1):
        ready = contender(place)
        begin = time.perf_counter_ns()
        ready()
        taken = time.perf_counter_ns() - begin
        if taken > _LONG_NS:
            break
    return taken


def p50(nanoseconds: Sequence[int]) -> float:
    """Return the median in microseconds."""
    return round(float(np.median(nanoseconds)) / 1000, 2)


def measure(
    catalogue: Catalogue, flat: Any, selectivity: float, batches: Sequence[int], checked: int, effort: Repetitions
) -> Iterator[Cell]:
    """Yield the cells of one selectivity, by batch size.

    Args:
        catalogue: its index is ours.
        flat: `flat_index` of the same vectors.
        selectivity: above 0; 1 is searched without a set.
        batches: queries in a call.
        checked: as many queries are compared with the oracle; at most Q.
        effort: of each cell.
    """
    rows = len(catalogue.vectors_ND)
    random = np.random.default_rng([rows, round(selectivity * 1e6)])
    chosen = random_set(rows, max(1, round(rows * selectivity)), random)
    eligible = None if selectivity == 1 else chosen
    # With each batch size one to be compared with the oracle, and one for each call of the two cold contenders.
    fresh = fresh_sets(chosen, rows, len(batches) * (1 + 2 * effort.calls), random)
    copy = flat if eligible is None else flat_index(catalogue.vectors_ND, chosen)
    panorama = panorama_index(catalogue.vectors_ND, eligible)
    true_BK = truth(catalogue, eligible, checked)
    for batch in batches:
        cold_recall, cold_plan = 1.0, None
        if eligible is not None:
            unseen = next(fresh)
            found_BK, plans = searched(catalogue.index, catalogue.queries_QD, batch, checked, unseen)
            cold_recall, cold_plan = recall(truth(catalogue, unseen, checked), found_BK), plans[0]
        heat(catalogue, batch, eligible)
        found_BK, plans = searched(catalogue.index, catalogue.queries_QD, batch, checked, eligible)
        contenders = _contenders(catalogue, flat, copy, panorama, batch, chosen)
        contenders["hot"] = on_batches(catalogue, batch, eligible)
        if eligible is not None:
            contenders["cold"] = lambda place, batch=batch: on_batches(catalogue, batch, next(fresh))(place)
            contenders["bitmap_cold"] = lambda place, batch=batch: _scan(catalogue, flat, batch, next(fresh))(place)
        taken = interleaved(contenders, effort, random)
        times = {name: p50(some) for name, some in taken.items()}
        yield Cell(
            catalogue=catalogue.name,
            rows=rows,
            selectivity=selectivity,
            eligible=len(chosen.rows_N),
            batch=batch,
            recall=round(min(cold_recall, recall(true_BK, found_BK)), 5),
            plan=plans[-1],
            cold_plan=cold_plan,
            repetitions=len(taken["hot"]),
            hot=times["hot"],
            cold=times.get("cold"),
            eligible_scan=times["eligible_scan"],
            panorama=times["panorama"],
            bitmap=times["bitmap"],
            bitmap_cold=times.get("bitmap_cold"),
        )


def _contenders(
    catalogue: Catalogue, flat: Any, copy: Any, panorama: Any, batch: int, chosen: EligibleSet
) -> dict[str, Contender]:
    """Return the baselines on a set they know, by name."""
    return {
        "eligible_scan": lambda place: partial(copy.search, catalogue.batch(place, batch), K),
        "panorama": lambda place: partial(panorama.search, catalogue.batch(place, batch), K),
        "bitmap": _scan(catalogue, flat, batch, chosen),
    }


def _scan(catalogue: Catalogue, flat: Any, batch: int, eligible: EligibleSet) -> Contender:
    """Return a filtered scan of the whole catalogue; its selector is made beforehand."""
    kept = selecting(eligible, len(catalogue.vectors_ND))
    return lambda place: partial(flat.search, catalogue.batch(place, batch), K, params=kept)


def on_batches(catalogue: Catalogue, batch: int, eligible: EligibleSet | None) -> Contender:
    """Return a contender that asks our index, every query of a batch in the same set."""
    sets_B = [eligible] * batch
    return lambda place: partial(catalogue.index.search, catalogue.batch(place, batch), K, sets_B)


def growth(catalogues: Sequence[Catalogue], eligible: int, sets: int, effort: Repetitions) -> Growth:
    """Time searches of the same number of eligible rows out of each catalogue.

    Queries go one by one, and known sets take turns.
    """
    random = np.random.default_rng(eligible)
    contenders: dict[str, Contender] = {}
    for catalogue in catalogues:
        known = [random_set(len(catalogue.vectors_ND), eligible, random) for _ in range(sets)]
        for one in known:
            catalogue.index.warm(one)
        turns = [on_batches(catalogue, 1, one) for one in known]
        contenders[catalogue.name] = lambda place, turns=turns: turns[place % sets](place)
    taken = interleaved(contenders, effort, random)
    return Growth(eligible, sets, {name: p50(some) for name, some in taken.items()})
