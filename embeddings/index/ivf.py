"""An inverted file that leaves out only shells that provably hold nothing wanted, and so stays exact.

The catalogue is cut into cells around centroids, and each cell into shells of as many rows, by their distance from the
centroid. A member v of a shell lies within the shell's radius r of its centroid c, so for a query q, by Cauchy-Schwarz,
q.v = q.c + q.(v - c) <= q.c + |q| r. A first pass over the few shells nearest the query finds P rows; every shell whose
bound stays below the worst of them is left out of the second pass. The clearer the catalogue's clusters, the more
shells that are; where there are none, this is a scan of everything.

Shapes: B queries, N catalogue rows, M of them looked at together, D dimensions, C cells, H shells, F shells of the
first pass, W shells of the widest second pass, S rows sampled, T shells kept by all queries together, P rows proposed.
"""

import math
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from embeddings.arrays import save_array
from embeddings.catalogue.eligible import EligibleSet
from embeddings.errors import CorruptBundle
from embeddings.index.base import F32, F64, I64, checked_vectors
from embeddings.index.score import LARGEST_HALF, ROWS_A_LOOK, max_norm, norms

_faiss: Any = faiss  # its type hints know the C++ constructors only

WORTH_ROWS = 300_000
"""Smaller catalogues need no inverted file: copies of them fit any cache, and are scanned faster."""

FEWEST_CELLS, MOST_CELLS = 16, 4_096
# Most of a cell lies well inside its farthest member: shells halve the rows that are scanned; more of them hardly help.
SHELLS = 4
# The first pass looks at this many shells at least, and at so many times as the proposals would fill on average.
FIRST_SHELLS, FIRST_SHARE = 64, 4
_KINDS = (faiss.IndexIVFScalarQuantizer.__name__, faiss.IndexIVFFlat.__name__)
_ROUNDS, _SEED, _SAMPLED_A_CELL = 8, 1, 64


def radii_path(path: Path) -> Path:
    """Return the path of the radii of the inverted file at ``path``."""
    return path.with_suffix(".radii.npy")


def cells_of(catalogue_rows: int) -> int:
    """Return the number of cells: the power of two nearest to the square root, within bounds, at most the rows."""
    wanted = 2 ** round(math.log2(math.sqrt(max(catalogue_rows, 1))))
    return min(max(wanted, FEWEST_CELLS), MOST_CELLS, catalogue_rows)


def write_ivf(vectors_ND: F32, path: Path) -> None:
    """Write the inverted file of these vectors, and beside it the radii of its shells, for `BoundedIvf` to open.

    The same vectors give the same files on the same machine.

    Raises:
        InvalidInput: wrong shape or dtype, no rows, NaN or infinity.
    """
    vectors_ND = checked_vectors(vectors_ND, fewest=1)
    rows, dimensions = vectors_ND.shape
    largest = max_norm(vectors_ND)
    centroids_CD, assigner, exponent = _clustered(vectors_ND, largest)
    cells_N, distances_N = np.empty(rows, np.int32), np.empty(rows)
    for start in range(0, rows, ROWS_A_LOOK):
        these = slice(start, start + ROWS_A_LOOK)
        some_MD = vectors_ND[these]
        cells_N[these] = assigner.search(np.ldexp(some_MD, exponent), 1)[1][:, 0]
        copies_MD = _copied(some_MD, largest)
        # Of a vector or of its copy, whichever lies farther out.
        distances_N[these] = np.maximum(
            *(norms(one_MD.astype(np.float64) - centroids_CD[cells_N[these]]) for one_MD in (some_MD, copies_MD))
        )
    shells_N = _shells(cells_N, distances_N, len(centroids_CD))
    quantizer = _faiss.IndexFlatIP(dimensions)
    quantizer.add(np.repeat(centroids_CD, SHELLS, axis=0))
    index = _empty(quantizer, SHELLS * len(centroids_CD), largest)
    index.is_trained = True  # neither kind learns anything but its lists
    for start in range(0, rows, ROWS_A_LOOK):
        some_MD, shells_M = vectors_ND[start : start + ROWS_A_LOOK], shells_N[start : start + ROWS_A_LOOK]
        index.add_core(len(some_MD), faiss.swig_ptr(some_MD), None, faiss.swig_ptr(shells_M))
    _write(index, path)
    radii_H = np.zeros(index.nlist)
    np.maximum.at(radii_H, shells_N, distances_N)
    # Rounded up, so that every member stays inside.
    save_array(radii_path(path), np.nextafter(radii_H.astype(np.float32), np.float32(np.inf)))


def _shells(cells_N: np.ndarray[Any, np.dtype[np.int32]], distances_N: F64, cells: int) -> I64:
    """Return each row's shell: cell c has equal shells from number ``SHELLS`` c on, the innermost first."""
    sizes_C = np.bincount(cells_N, minlength=cells)
    order_N = np.lexsort((distances_N, cells_N))
    ranks_N = np.empty(len(cells_N), np.int64)
    ranks_N[order_N] = np.arange(len(cells_N)) - np.repeat(np.cumsum(sizes_C) - sizes_C, sizes_C)
    return cells_N * np.int64(SHELLS) + ranks_N * SHELLS // sizes_C[cells_N]


def _clustered(vectors_ND: F32, largest: float) -> tuple[F32, Any, int]:
    """Return centroids (C, D), the index that assigns scaled vectors to them, and the scale as a power of two.

    k-means squares distances in float32: vectors are scaled to a length of about one, so that no square overflows.
    """
    exponent = -math.frexp(largest)[1] if largest else 0
    cells = cells_of(len(vectors_ND))
    sampled = min(len(vectors_ND), cells * _SAMPLED_A_CELL)
    sample_S = np.sort(np.random.default_rng(_SEED).choice(len(vectors_ND), sampled, replace=False))
    clusters: Any = faiss.Kmeans(
        vectors_ND.shape[1],
        cells,
        niter=_ROUNDS,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLED_A_CELL,
    )
    clusters.train(np.ldexp(vectors_ND[sample_S], exponent))
    centroids_CD = np.ldexp(clusters.centroids, -exponent)
    # A centroid outside the ball that holds all vectors is moved onto it, nearer to every one of them: so the rounding
    # bound of the longest vector covers the products with centroids too.
    lengths_C = norms(centroids_CD)
    shrink_C = largest / np.maximum(lengths_C, largest) if largest else np.zeros(cells)
    return (centroids_CD * shrink_C[:, None]).astype(np.float32), clusters.index, exponent


def _empty(quantizer: Any, cells: int, largest: float) -> Any:
    """Return an empty inverted file with copies of half precision, or of full if half cannot hold the numbers."""
    if largest > LARGEST_HALF:
        return _faiss.IndexIVFFlat(quantizer, quantizer.d, cells, faiss.METRIC_INNER_PRODUCT)
    half = faiss.ScalarQuantizer.QT_fp16
    return _faiss.IndexIVFScalarQuantizer(quantizer, quantizer.d, cells, half, faiss.METRIC_INNER_PRODUCT, False)


def _copied(vectors_MD: F32, largest: float) -> F32:
    """Return the copies of some vectors that the inverted file holds, as float32."""
    if largest > LARGEST_HALF:
        return vectors_MD
    half = faiss.ScalarQuantizer.QT_fp16
    copies = _faiss.IndexScalarQuantizer(vectors_MD.shape[1], half, faiss.METRIC_INNER_PRODUCT)
    copies.add(vectors_MD)
    return copies.reconstruct_n(0, len(vectors_MD))


def _write(index: Any, path: Path) -> None:
    """Write an index to a file.

    FAISS hands the bytes to Python, because its own writer raises nothing if it cannot write the last of them.
    """
    with path.open("wb") as file:
        _faiss.write_index(index, _faiss.PyCallbackIOWriter(file.write))


def _read_mapped(path: Path, shape: tuple[int, ...]) -> Any:
    """Return the index stored at ``path``; its copies are mapped, so that processes share them.

    Raises:
        CorruptBundle: it cannot be read, or is no inverted file by inner product and of this shape.
    """
    try:
        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise CorruptBundle(path, "not a readable FAISS index", str(error)) from error
    kind, found = type(index).__name__, (index.ntotal, index.d)
    if kind not in _KINDS or index.metric_type != faiss.METRIC_INNER_PRODUCT or found != shape:
        raise CorruptBundle(path, f"expected {' or '.join(_KINDS)} of {shape}, found {kind} of {found}")
    return index


class Selection:
    """Restricts a FAISS search to the rows of a set: one bit per catalogue row.

    Attributes:
        nbytes: of the bits.
    """

    def __init__(self, eligible: EligibleSet, catalogue_rows: int) -> None:
        allowed_N = np.zeros(catalogue_rows, np.bool_)
        allowed_N[eligible.rows_N] = True
        # FAISS reads bits and selector by address: whoever searches by the parameters must hold this object meanwhile.
        self._bits = np.packbits(allowed_N, bitorder="little")
        self._selector = _faiss.IDSelectorBitmap(self._bits)
        self.nbytes = self._bits.nbytes

    def parameters(self, cells: int) -> Any:
        """Return the parameters of a search that looks at so many cells."""
        return _faiss.SearchParametersIVF(sel=self._selector, nprobe=cells)


class BoundedIvf:
    """Proposes from the shells that may hold one of the best; memory-mapped, so that processes share it."""

    def __init__(self, index: Any, centroids_CD: F32, radii_H: F32) -> None:
        self._index, self._centroids_CD, self._radii_H = index, centroids_CD, radii_H.astype(np.float64)

    @classmethod
    def open(cls, path: Path, shape: tuple[int, ...]) -> Self:
        """Open what `write_ivf` wrote for vectors of this shape.

        Raises:
            CorruptBundle: one of the two files cannot be read, or does not fit the shape.
        """
        index = _read_mapped(path, shape)
        radii_file = radii_path(path)
        try:
            radii_H = np.load(radii_file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CorruptBundle(radii_file, "not a readable array", str(error)) from error
        if radii_H.shape != (index.nlist,) or radii_H.dtype != np.float32 or not bool((radii_H >= 0).all()):
            found = f"{radii_H.dtype} {radii_H.shape}"
            raise CorruptBundle(radii_file, f"expected {index.nlist} float32 radii, none negative, found {found}")
        return cls(index, np.ascontiguousarray(index.quantizer.reconstruct_n(0, index.nlist)[::SHELLS]), radii_H)

    def propose(
        self, queries_BD: F32, proposals: int, bounds_B: F64, *, eligible_rows: int, selected: Selection | None
    ) -> tuple[F32, I64]:
        """Return FAISS' scores, descending, and catalogue rows, both (B, P), as a flat scan would propose them.

        Args:
            queries_BD: float32, finite, contiguous.
            proposals: P, below ``eligible_rows``.
            bounds_B: how far two float32 arithmetics may differ for the longest vector and its copy.
            eligible_rows: how many rows may be proposed.
            selected: the rows that may be proposed; None for every row.
        """
        shells = len(self._radii_H)
        products_BH = np.repeat(queries_BD @ self._centroids_CD.T, SHELLS, axis=1)
        first = max(FIRST_SHELLS, math.ceil(FIRST_SHARE * proposals * shells / eligible_rows))
        while first < shells:
            nearest_BF = np.argpartition(products_BH, shells - first, axis=1)[:, shells - first :]
            scores_BP, rows_BP = self._scan(queries_BD, proposals, nearest_BF, selected)
            if rows_BP[:, -1].min() >= 0:
                break
            first *= 4
        else:
            every_BH = np.broadcast_to(np.arange(shells), (len(queries_BD), shells))
            return self._scan(queries_BD, proposals, every_BH, selected)
        # Both the product with the centroid and the worst score so far are rounded sums.
        best_BH = products_BH + norms(queries_BD)[:, None] * self._radii_H + 2.0 * bounds_B[:, None]
        kept_BH = best_BH >= scores_BP[:, -1:]
        return self._scan(queries_BD, proposals, _listed(kept_BH), selected)

    def _scan(self, queries_BD: F32, proposals: int, shells_BW: I64, selected: Selection | None) -> tuple[F32, I64]:
        queries, width = shells_BW.shape
        shells_BW = np.ascontiguousarray(shells_BW)
        distances_BW = np.zeros((queries, width), np.float32)  # asked for, and used by residual codes only
        scores_BP, rows_BP = np.empty((queries, proposals), np.float32), np.empty((queries, proposals), np.int64)
        parameters = _faiss.SearchParametersIVF(nprobe=width) if selected is None else selected.parameters(width)
        # FAISS' own wrapper of this call refuses parameters.
        self._index.search_preassigned_c(
            queries,
            faiss.swig_ptr(queries_BD),
            proposals,
            faiss.swig_ptr(shells_BW),
            faiss.swig_ptr(distances_BW),
            faiss.swig_ptr(scores_BP),
            faiss.swig_ptr(rows_BP),
            False,
            parameters,
        )
        return scores_BP, rows_BP


def _listed(kept_BH: np.ndarray[Any, np.dtype[np.bool_]]) -> I64:
    """Return the places of True in each row (B, W), ascending, padded with -1, which FAISS skips."""
    counts_B = kept_BH.sum(axis=1)
    places_BW = np.full((len(kept_BH), max(1, int(counts_B.max()))), -1, dtype=np.int64)
    query_T, shell_T = np.nonzero(kept_BH)
    starts_B = np.cumsum(counts_B) - counts_B
    places_BW[query_T, np.arange(len(query_T)) - starts_B[query_T]] = shell_T
    return places_BW
