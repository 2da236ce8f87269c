"""Generated catalogues of millions, clustered as real product vectors are, kept on disk and memory-mapped.

A mixture of Gaussians whose mean and covariance are those of the real vectors: the centres share one part of the
covariance, every cluster has the other part around its centre, and cluster sizes follow a power law.

Shapes: C clusters, D dimensions, N rows, Q queries.
"""

import shutil
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.random import Generator
from rich.progress import track

from embeddings.errors import InvalidInput
from embeddings.index.base import F32, F64

ROWS_A_CLUSTER = 100
WITHIN = 0.34
"""Share of the variance within clusters: what k-means leaves of Complete Journey's vectors at 100 rows a cell."""
_SIZES_EXPONENT = 0.7
"""The r-th largest cluster is drawn as often as r to minus this: in millions the largest holds about one row in 100."""
_CHUNK = 250_000
_RESERVE_BYTES = 2 * 2**30
"""For what is made beside a catalogue: an inverted file, half as large."""
_QUERIES = 1 << 40
"""Tells the queries' random stream from those of the chunks, which are numbered from 0."""


class Mixture(NamedTuple):
    """The clusters that vectors are drawn from.

    Attributes:
        centres_CD: float32.
        shares_C: cumulated shares of the clusters, ascending to 1.
        spread_DD: float32; what a row of standard normal numbers is multiplied with to lie around its centre.
    """

    centres_CD: F32
    shares_C: F64
    spread_DD: F32

    @classmethod
    def like(cls, vectors_ND: F32, clusters: int, seed: int) -> Self:
        """Return a mixture of this many clusters, with mean and covariance of these vectors."""
        root_DD = _root(np.cov(vectors_ND, rowvar=False, dtype=np.float64))
        normal_CD = np.random.default_rng([seed]).standard_normal((clusters, vectors_ND.shape[1]))
        centres_CD = vectors_ND.mean(axis=0, dtype=np.float64) + np.sqrt(1 - WITHIN) * normal_CD @ root_DD
        sizes_C = np.arange(1, clusters + 1) ** -_SIZES_EXPONENT
        shares_C = sizes_C.cumsum() / sizes_C.sum()
        return cls(centres_CD.astype(np.float32), shares_C, (np.sqrt(WITHIN) * root_DD).astype(np.float32))

    def draw(self, random: Generator, count: int) -> F32:
        """Draw some vectors, float32 (count, D), each near the centre of a random cluster."""
        # The last share may be rounded below 1, and what is drawn above it belongs to the last cluster.
        clusters_N = np.minimum(self.shares_C.searchsorted(random.random(count)), len(self.centres_CD) - 1)
        drawn_ND = random.standard_normal((count, self.spread_DD.shape[0]), dtype=np.float32) @ self.spread_DD
        drawn_ND += self.centres_CD[clusters_N]
        return drawn_ND


def catalogue(folder: Path, like_ND: F32, rows: int, seed: int = 0) -> Path:
    """Return the .npy file of a generated catalogue, float32 (rows, D); make it unless this very one is there.

    Every chunk of rows has a random stream of its own, so one more or less changes no other.

    Args:
        folder: where catalogues are kept; another one of as many rows is replaced, and what was made beside it.
        like_ND: the real vectors that the generated ones resemble.
        rows: how many, at least `ROWS_A_CLUSTER`.
        seed: the same seed and the same real vectors give the same catalogue.

    Raises:
        InvalidInput: the disk has no room for it.
    """
    identity = blake2b(np.array([seed, ROWS_A_CLUSTER, WITHIN, _SIZES_EXPONENT, _CHUNK]).tobytes(), digest_size=6)
    identity.update(np.ascontiguousarray(like_ND).data)
    path = folder / f"generated-{rows}-{identity.hexdigest()}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for outdated in folder.glob(f"generated-{rows}-*"):
            outdated.unlink()
        _check_room(folder, rows * like_ND.shape[1] * 4)
        _write(path, _mixture(like_ND, rows, seed), rows, seed)
    return path


def queries(like_ND: F32, rows: int, count: int, seed: int = 0) -> F32:
    """Return query vectors for `catalogue` of the same arguments, float32 (count, D), near random clusters of it."""
    return _mixture(like_ND, rows, seed).draw(np.random.default_rng([seed, _QUERIES]), count)


def _mixture(like_ND: F32, rows: int, seed: int) -> Mixture:
    return Mixture.like(like_ND, rows // ROWS_A_CLUSTER, seed)


def _root(covariance_DD: F64) -> F64:
    """Return the symmetric square root."""
    values_D, vectors_DD = np.linalg.eigh(covariance_DD)
    return (vectors_DD * np.sqrt(np.maximum(values_D, 0))) @ vectors_DD.T


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes + _RESERVE_BYTES:
        raise InvalidInput(
            "store",
            f"expected {(nbytes + _RESERVE_BYTES) / 2**30:.1f} GiB free for a generated catalogue, "
            f"not {free / 2**30:.1f}; name another with --store",
        )


def _write(path: Path, mixture: Mixture, rows: int, seed: int) -> None:
    """Write under another name and rename, so that an interrupted run leaves nothing that looks whole."""
    partial = path.with_suffix(".partial")
    dimensions = mixture.spread_DD.shape[0]
    written_ND = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(rows, dimensions))
    for chunk, start in enumerate(track(range(0, rows, _CHUNK), f"generating {rows:,} vectors", transient=True)):
        count = min(_CHUNK, rows - start)
        written_ND[start : start + count] = mixture.draw(np.random.default_rng([seed, chunk]), count)
    written_ND.flush()
    del written_ND
    partial.rename(path)
