"""The planner's constants on this machine: lines through what our index takes when it must follow one plan.

Shapes: D dimensions, P points of a line, Q queries.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import Struct
from rich.progress import track

from benchmarks.search.cells import Catalogue, Contender, Repetitions, interleaved, on_batches, p50, random_set
from benchmarks.search.clusters import ROWS_A_CLUSTER, Mixture
from embeddings.index.base import F32
from embeddings.index.ivf import write_ivf
from embeddings.index.plan import MEASURED
from embeddings.index.planned import DEFAULT_CACHE_BYTES, PlannedIndex

_NEVER = 2**62
_SET_ROWS = (1_000, 10_000, 100_000)
_TAKEN_ROWS = (1_000, 5_000, 20_000, 50_000)
_SHARES = (0.001, 0.01, 0.1, 0.5)
_LARGE_SHARES = (0.1, 0.3, 0.5, 0.9)
_SET_OF_PARTS, _MASKED_SHARES, _SCORED_SHARES = 10_000, (0.2, 0.5, 0.9), (0.05, 0.1, 0.2)
_IVF_ROWS = (50_000, 100_000, 200_000, 400_000)


class IvfPoint(Struct, frozen=True):
    """p50 in microseconds of one query: from a copy; and where no copy can be kept, flat and by the bounded IVF.

    Attributes:
        copy, flat, ivf: all rows eligible.
        gathered, ivf_selected: half of the rows eligible.
    """

    catalogue: str
    rows: int
    copy: float
    flat: float
    ivf: float
    gathered: float
    ivf_selected: float


class Measured(Struct, frozen=True):
    """As `embeddings.index.plan.Costs`, and what the bounded IVF stands beside."""

    scan_ns: float
    passed_ns: float
    selected_ns: float
    filtered_ns: float
    gather_ns: float
    sifted_ns: float
    taken_ns: float
    gather_us: float
    score_ns: float
    mask_us: float
    ivf_points: list[IvfPoint]


def costs(real: Catalogue, large: Catalogue, effort: Repetitions) -> Measured:
    """Measure, one query at a time.

    Args:
        real: what generated catalogues resemble, on some of which the bounded IVF is tried, as on this one. How far
            rows are read under a filter is measured here: generated ones lie in clearer clusters. So are the taking of
            sets out of the copy of all rows and the search of a part of a set.
        large: a generated one of a million rows or so.
        effort: of each point.
    """
    _, scan_ns = line(_SET_ROWS, [_gathered_us(large, rows, effort) for rows in _SET_ROWS])
    rows = len(large.vectors_ND)
    without = replace(large, index=PlannedIndex(large.vectors_ND, "cpu"))
    gather_us, gather_ns = line(_SET_ROWS, [_gathering_us(without, some, effort, whole=False) for some in _SET_ROWS])
    always = replace(MEASURED, sifted_ns=0.0, taken_ns=0.0)
    holding = replace(real, index=PlannedIndex(real.vectors_ND, "cpu", costs=always))
    sifted_us, taken_ns = line(_TAKEN_ROWS, [_gathering_us(holding, some, effort, whole=True) for some in _TAKEN_ROWS])
    selected = [round(share * rows) for share in _SHARES]
    passed_us, selected_ns = line(selected, _rented_us(large, selected, effort, cache_bytes=0))
    many = [round(share * len(real.vectors_ND)) for share in _LARGE_SHARES]
    filtered_us = _rented_us(real, many, effort, cache_bytes=DEFAULT_CACHE_BYTES)
    filtered_ns = _filtered_ns(len(real.vectors_ND), many, filtered_us)
    scored = [round(share * _SET_OF_PARTS) for share in _SCORED_SHARES]
    _, score_ns = line(scored, _part_us(real, scored, effort, masked=False))
    masked = [round(share * _SET_OF_PARTS) for share in _MASKED_SHARES]
    mask_us = _mask_us(filtered_ns, masked, _part_us(real, masked, effort, masked=True))
    points = [
        _ivf_point(f"{one:,} generated", *_drawn(real.vectors_ND, one), effort)
        for one in track(_IVF_ROWS, "bounded IVF", transient=True)
    ]
    if large.ivf is not None:
        points.append(_compared(large.name, large.vectors_ND, large.queries_QD, large.ivf, effort))
    return Measured(
        scan_ns=round(scan_ns, 2),
        passed_ns=round(passed_us * 1_000 / rows, 2),
        selected_ns=round(selected_ns, 2),
        filtered_ns=round(filtered_ns, 2),
        gather_ns=round(gather_ns, 2),
        sifted_ns=round(sifted_us * 1_000 / len(real.vectors_ND), 2),
        taken_ns=round(taken_ns, 2),
        gather_us=round(gather_us, 1),
        score_ns=round(score_ns, 2),
        mask_us=round(mask_us, 1),
        ivf_points=[*points, _ivf_point(real.name, real.vectors_ND, real.queries_QD, effort)],
    )


def line(rows: Sequence[int], microseconds: Sequence[float]) -> tuple[float, float]:
    """Fixed microseconds, not below 0, and nanoseconds a row; fitted to relative errors, so that small sets count."""
    slope_us, fixed_us = np.polyfit(rows, microseconds, 1, w=1 / np.asarray(microseconds))
    if fixed_us < 0:
        rows_P, weights_P = np.asarray(rows, np.float64), 1 / np.asarray(microseconds)
        fixed_us, slope_us = 0.0, (rows_P * weights_P).sum() / ((rows_P * weights_P) ** 2).sum()
    return float(fixed_us), float(slope_us) * 1_000


def _filtered_ns(rows: int, selected: Sequence[int], microseconds: Sequence[float]) -> float:
    """Nanoseconds a catalogue row, over the root of the inverse share of rows selected."""
    return median(us * math.sqrt(some / rows) * 1_000 / rows for us, some in zip(microseconds, selected, strict=True))


def _gathered_us(catalogue: Catalogue, rows: int, effort: Repetitions) -> float:
    """A search of a set whose copy is there, sets taking turns."""
    random = np.random.default_rng(rows)
    known = [random_set(len(catalogue.vectors_ND), rows, random) for _ in range(4)]
    for one in known:
        catalogue.index.warm(one)
    turns = [on_batches(catalogue, 1, one) for one in known]
    return _alone(lambda place: turns[place % len(turns)](place), effort)


def _gathering_us(catalogue: Catalogue, rows: int, effort: Repetitions, *, whole: bool) -> float:
    """Making the copy of a set, where the copy of all rows is held or is not."""
    random = np.random.default_rng(rows + 1)

    def fresh(_: int) -> Callable[[], object]:
        if whole:  # asked for each time: the copies of sets made since would drive it out of the cache
            catalogue.index.search(catalogue.queries_QD[:1], 1, [None])
        one = random_set(len(catalogue.vectors_ND), rows, random)
        return lambda: catalogue.index.warm(one)

    return _alone(fresh, effort)


def _rented_us(catalogue: Catalogue, selected: Sequence[int], effort: Repetitions, *, cache_bytes: int) -> list[float]:
    """Searches of sets that are never copied, by their size; from the copy of all rows where the cache can hold it."""
    never = replace(MEASURED, gather_us=float(_NEVER), filtered_ns=0.0)
    index = PlannedIndex(catalogue.vectors_ND, "cpu", cache_bytes, costs=never)
    random = np.random.default_rng(0)
    sets = [random_set(len(catalogue.vectors_ND), rows, random) for rows in selected]
    renting = replace(catalogue, index=index)
    return [_alone(on_batches(renting, 1, one), effort) for one in sets]


def _part_us(catalogue: Catalogue, rows: Sequence[int], effort: Repetitions, *, masked: bool) -> list[float]:
    """Searches of parts of one set, by their size: under a mask from the set's copy, or every row scored."""
    costs = replace(MEASURED, score_ns=float(_NEVER) if masked else 0.0)
    parts_of = replace(catalogue, index=PlannedIndex(catalogue.vectors_ND, "cpu", costs=costs))
    random = np.random.default_rng(0)
    whole = random_set(len(catalogue.vectors_ND), _SET_OF_PARTS, random)
    parts_of.index.warm(whole)
    parts = [whole.among(random.choice(whole.rows_N, some, replace=False)) for some in rows]
    return [_alone(on_batches(parts_of, 1, one), effort) for one in parts]


def _mask_us(filtered_ns: float, parts: Sequence[int], microseconds: Sequence[float]) -> float:
    """Microseconds that a scan under a mask takes besides what its rows do."""
    return median(
        us - _SET_OF_PARTS * filtered_ns * math.sqrt(_SET_OF_PARTS / some) / 1_000
        for us, some in zip(microseconds, parts, strict=True)
    )


def _drawn(like_ND: F32, rows: int) -> tuple[F32, F32]:
    """A small generated catalogue and queries."""
    random = np.random.default_rng(rows)
    mixture = Mixture.like(like_ND, rows // ROWS_A_CLUSTER, rows)
    return mixture.draw(random, rows), mixture.draw(random, 128)


def _ivf_point(name: str, vectors_ND: F32, queries_QD: F32, effort: Repetitions) -> IvfPoint:
    """By copy and bounded, the inverted file in a folder that is thrown away."""
    with TemporaryDirectory(prefix="opportune-ivf-") as folder:
        path = Path(folder) / "ivf.faiss"
        write_ivf(vectors_ND, path)
        return _compared(name, vectors_ND, queries_QD, path, effort)


def _compared(name: str, vectors_ND: F32, queries_QD: F32, ivf: Path, effort: Repetitions) -> IvfPoint:
    rows = len(vectors_ND)
    half = random_set(rows, rows // 2, np.random.default_rng(rows))
    kept = Catalogue(name, vectors_ND, queries_QD, PlannedIndex(vectors_ND, "cpu"))
    flat = Catalogue(name, vectors_ND, queries_QD, PlannedIndex(vectors_ND, "cpu", cache_bytes=0))
    bounded = Catalogue(name, vectors_ND, queries_QD, PlannedIndex(vectors_ND, "cpu", cache_bytes=0, ivf=ivf))
    kept.index.warm(half)
    ways = {
        "copy": on_batches(kept, 1, None),
        "flat": on_batches(flat, 1, None),
        "ivf": on_batches(bounded, 1, None),
        "gathered": on_batches(kept, 1, half),
        "ivf_selected": on_batches(bounded, 1, half),
    }
    taken = interleaved(ways, effort, np.random.default_rng(0))
    return IvfPoint(name, rows, **{way: p50(some) for way, some in taken.items()})


def _alone(contender: Contender, effort: Repetitions) -> float:
    return p50(interleaved({"": contender}, effort, np.random.default_rng(0))[""])
