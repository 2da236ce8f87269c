"""The planner's constants on this machine: lines through the times of our index when it must follow one plan.

Shapes: D dimensions, P points of a line, Q queries.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import Struct
from rich.progress import track

from benchmarks.search.cells import Catalogue, Contender, Repetitions, interleaved, on_batches, p50, random_set
from benchmarks.search.clusters import ROWS_A_CLUSTER, Mixture
from embeddings.index.base import F32
from embeddings.index.ivf import write_ivf
from embeddings.index.plan import MEASURED
from embeddings.index.planned import PlannedIndex

_NEVER = 2.0**62
_SET_ROWS = (1_000, 10_000, 100_000)
_TAKEN_ROWS = (1_000, 5_000, 20_000, 50_000)
_MASKED_SHARES, _SCORED_SHARES = (0.1, 0.3, 0.5, 0.9), (0.002, 0.01, 0.03)
_IVF_ROWS = (50_000, 100_000, 200_000, 400_000)


class IvfPoint(Struct, frozen=True):
    """p50 in microseconds of one query, from copies, and from the inverted file where no copy can be kept.

    Attributes:
        whole, ivf: all rows eligible.
        own, ivf_selected: half of the rows eligible.
    """

    catalogue: str
    rows: int
    whole: float
    ivf: float
    own: float
    ivf_selected: float


class Measured(Struct, frozen=True):
    """The fields of `embeddings.index.plan.Costs`, and the times of the inverted file beside those of copies."""

    scan_ns: float
    masked_ns: float
    mask_us: float
    gather_ns: float
    sifted_ns: float
    taken_ns: float
    score_ns: float
    ivf_points: list[IvfPoint]


def costs(real: Catalogue, large: Catalogue, effort: Repetitions) -> Measured:
    """Measure the planner's constants, one query at a time.

    Args:
        real: the catalogue that generated ones resemble; the inverted file is tried on it and on some of them. Three
            costs are measured here: how far rows are read under a mask, as generated ones lie in clearer clusters,
            the taking of sets out of the copy of all rows, and the scoring of every row.
        large: a generated one of a million rows or so.
        effort: of each point.
    """
    _, scan_ns = line(_SET_ROWS, [_own_us(large, rows, effort) for rows in _SET_ROWS])
    without = replace(large, index=PlannedIndex(large.vectors_ND, "cpu"))
    _, gather_ns = line(_SET_ROWS, [_gathering_us(without, some, effort, whole=False) for some in _SET_ROWS])
    always = replace(MEASURED, sifted_ns=0.0, taken_ns=0.0)
    holding = replace(real, index=PlannedIndex(real.vectors_ND, "cpu", costs=always))
    sifted_us, taken_ns = line(_TAKEN_ROWS, [_gathering_us(holding, some, effort, whole=True) for some in _TAKEN_ROWS])
    count = len(real.vectors_ND)
    masked = [round(share * count) for share in _MASKED_SHARES]
    never = replace(MEASURED, gather_ns=_NEVER, sifted_ns=_NEVER, score_ns=_NEVER)
    # A row for each of all, over the root of the share that is wanted.
    read = [round(count * math.sqrt(count / some)) for some in masked]
    masking = replace(real, index=PlannedIndex(real.vectors_ND, "cpu", costs=never))
    mask_us, masked_ns = line(read, [_masked_us(masking, some, effort) for some in masked])
    scored = [round(share * count) for share in _SCORED_SHARES]
    every = replace(MEASURED, gather_ns=_NEVER, sifted_ns=_NEVER, score_ns=0.0)
    scoring = replace(real, index=PlannedIndex(real.vectors_ND, "cpu", costs=every))
    _, score_ns = line(scored, [_scored_us(scoring, some, effort) for some in scored])
    points = [
        _ivf_point(f"{one:,} generated", *_drawn(real.vectors_ND, one), effort)
        for one in track(_IVF_ROWS, "inverted file", transient=True)
    ]
    if large.ivf is not None:
        points.append(_compared(large.name, large.vectors_ND, large.queries_QD, large.ivf, effort))
    return Measured(
        scan_ns=round(scan_ns, 2),
        masked_ns=round(masked_ns, 2),
        mask_us=round(mask_us, 1),
        gather_ns=round(gather_ns, 2),
        sifted_ns=round(sifted_us * 1_000 / count, 2),
        taken_ns=round(taken_ns, 2),
        score_ns=round(score_ns, 2),
        ivf_points=[*points, _ivf_point(real.name, real.vectors_ND, real.queries_QD, effort)],
    )


def line(rows: Sequence[int], microseconds: Sequence[float]) -> tuple[float, float]:
    """Fit a line and return its fixed microseconds, not below 0, and its nanoseconds a row.

    The fit weighs relative errors, so that small sets count.
    """
    slope_us, fixed_us = np.polyfit(rows, microseconds, 1, w=1 / np.asarray(microseconds))
    if fixed_us < 0:
        rows_P, weights_P = np.asarray(rows, np.float64), 1 / np.asarray(microseconds)
        fixed_us, slope_us = 0.0, (rows_P * weights_P).sum() / ((rows_P * weights_P) ** 2).sum()
    return float(fixed_us), float(slope_us) * 1_000


def _own_us(catalogue: Catalogue, rows: int, effort: Repetitions) -> float:
    """Measure the microseconds to search a set whose copy is there, sets taking turns."""
    random = np.random.default_rng(rows)
    known = [random_set(len(catalogue.vectors_ND), rows, random) for _ in range(4)]
    for one in known:
        catalogue.index.warm(one)
    turns = [on_batches(catalogue, 1, one) for one in known]
    return _alone(lambda place: turns[place % len(turns)](place), effort)


def _gathering_us(catalogue: Catalogue, rows: int, effort: Repetitions, *, whole: bool) -> float:
    """Measure the microseconds to copy a set, where the copy of all rows is held or is not."""
    random = np.random.default_rng(rows + 1)

    def fresh(_: int) -> Callable[[], object]:
        if whole:  # asked for each time: the copies of sets made since would drive it out of the cache
            catalogue.index.search(catalogue.queries_QD[:1], 1, [None])
        one = random_set(len(catalogue.vectors_ND), rows, random)
        return lambda: catalogue.index.warm(one)

    return _alone(fresh, effort)


def _masked_us(catalogue: Catalogue, rows: int, effort: Repetitions) -> float:
    """Measure the microseconds to search a set again and again."""
    one = random_set(len(catalogue.vectors_ND), rows, np.random.default_rng(rows))
    return _alone(on_batches(catalogue, 1, one), effort)


def _scored_us(catalogue: Catalogue, rows: int, effort: Repetitions) -> float:
    """Measure the microseconds to score the rows of a new set; those of a set just searched lie in the caches."""
    random = np.random.default_rng(rows + 2)

    def fresh(place: int) -> Callable[[], object]:
        return on_batches(catalogue, 1, random_set(len(catalogue.vectors_ND), rows, random))(place)

    return _alone(fresh, effort)


def _drawn(like_ND: F32, rows: int) -> tuple[F32, F32]:
    """Draw a small generated catalogue and queries."""
    random = np.random.default_rng(rows)
    mixture = Mixture.like(like_ND, rows // ROWS_A_CLUSTER, rows)
    return mixture.draw(random, rows), mixture.draw(random, 128)


def _ivf_point(name: str, vectors_ND: F32, queries_QD: F32, effort: Repetitions) -> IvfPoint:
    """Compare copies and an inverted file, in a folder that is thrown away."""
    with TemporaryDirectory(prefix="opportune-ivf-") as folder:
        path = Path(folder) / "ivf.faiss"
        write_ivf(vectors_ND, path)
        return _compared(name, vectors_ND, queries_QD, path, effort)


def _compared(name: str, vectors_ND: F32, queries_QD: F32, ivf: Path, effort: Repetitions) -> IvfPoint:
    rows = len(vectors_ND)
    half = random_set(rows, rows // 2, np.random.default_rng(rows))
    kept = Catalogue(name, vectors_ND, queries_QD, PlannedIndex(vectors_ND, "cpu"))
    bounded = Catalogue(name, vectors_ND, queries_QD, PlannedIndex(vectors_ND, "cpu", cache_bytes=0, ivf=ivf))
    kept.index.warm(half)
    ways = {
        "whole": on_batches(kept, 1, None),
        "ivf": on_batches(bounded, 1, None),
        "own": on_batches(kept, 1, half),
        "ivf_selected": on_batches(bounded, 1, half),
    }
    taken = interleaved(ways, effort, np.random.default_rng(0))
    return IvfPoint(name, rows, **{way: p50(some) for way, some in taken.items()})


def _alone(contender: Contender, effort: Repetitions) -> float:
    return p50(interleaved({"": contender}, effort, np.random.default_rng(0))[""])
