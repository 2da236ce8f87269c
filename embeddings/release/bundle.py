"""One immutable model release: its files, its manifest, and the checks between disk and use.

    manifest.json        what it is, what it was measured at, and the SHA-256 of every other file
    catalogue/           products, offers, locations, promotion plan
    vectors/             products.npy, similar.npy and similar-origin.npy: float32, memory-mapped
    products.ivf.faiss   the product vectors cut into cells, and products.ivf.radii.npy; only for large catalogues
    customer.onnx        history, attributes and context -> customer vector
    product.onnx         row and attributes -> product vector
    statistics/          what past purchases say about each product
    ranker.onnx          features of a candidate -> probability that a regular customer takes it
    newcomers.onnx       the same for all other questions: see features.is_regular
    offers.onnx          features of an offer -> log-odds
    redemption.onnx      features of a visit -> probability that any eligible offer is redeemed in it
    pictures/            curves.png: loss and quality of each fit; products.png: a map of the products

It holds no personal data. Histories lie apart, in a folder with a manifest of its own.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import load_array
from embeddings.catalogue.columns import Catalogue
from embeddings.closing import Closing
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import situation_sizes
from embeddings.device import Device
from embeddings.errors import CorruptBundle
from embeddings.index.planned import PlannedIndex
from embeddings.ranking.statistics import Statistics
from embeddings.release.consistent import check_catalogue, check_statistics
from embeddings.release.encoders import (
    CustomerEncoder,
    OfferRankerSession,
    ProductEncoder,
    RankerSession,
    RankerSessions,
    RedemptionSession,
)

FORMAT_VERSION = 14
BUNDLE, HISTORIES, MANIFEST = "bundle", "histories", "manifest.json"
CATALOG = "catalogue"
PRODUCT_VECTORS = "vectors/products.npy"
SIMILAR_VECTORS, SIMILAR_ORIGIN = "vectors/similar.npy", "vectors/similar-origin.npy"
IVF_INDEX = "products.ivf.faiss"
CUSTOMER_ENCODER, PRODUCT_ENCODER = "customer.onnx", "product.onnx"
RANKER, NEWCOMERS = "ranker.onnx", "newcomers.onnx"
OFFER_RANKER, REDEMPTION = "offers.onnx", "redemption.onnx"
STATISTICS = "statistics"
CURVES, PRODUCT_MAP = "pictures/curves.png", "pictures/products.png"


class FileEntry(msgspec.Struct, frozen=True):
    """The SHA-256 and the size in bytes that a file must have."""

    sha256: str
    bytes: int


class Made(msgspec.Struct, frozen=True):
    """The fields that a release's manifest has in every format."""

    format_version: int
    version: str
    created_at: datetime
    data_cut_off: datetime


class _Format(msgspec.Struct, frozen=True):
    """The field of a manifest that is read first: a manifest of another format may lack all others."""

    format_version: int = FORMAT_VERSION


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of every manifest of this format.

    Attributes:
        data_cut_off: nothing that happened at or after this moment was visible.
        files: SHA-256 and size of every other file of the folder.
        seal: SHA-256 of the manifest itself, written without its seal.
    """

    format_version: int = FORMAT_VERSION
    version: str
    created_at: datetime
    data_cut_off: datetime
    files: dict[str, FileEntry]
    seal: str = ""


class Epochs(msgspec.Struct, frozen=True):
    """The progress of a fit after some epochs.

    Attributes:
        epochs: how many.
        examples: how many it was shown in them, again and again: targets of the towers and of embeddings, lists of the
            ranker.
        seconds: of fitting, without validations and checkpoints. Of all numbers the only one that another run of the
            same data, recipe and seed changes.
        loss: mean over the steps of the last of the epochs.
        metrics: on what is held out; empty where nothing was measured.
    """

    epochs: int
    examples: int
    seconds: float
    loss: float
    metrics: dict[str, float]


class Manifest(Sealed, frozen=True, kw_only=True):
    """The manifest of a release.

    Attributes:
        stale_after_days: how long after the cut-off its answers are good for; None for ever.
        longest_absence: as in ``Statistics``; None where nothing was learnt of it.
        filter_already_bought: whether requests that do not say so want nothing that the customer has bought already: no
            ranker knows better, and repeats are rare in the data.
        catalogue_log: the database's log of changes that was read; empty where the tables lay in a folder.
        catalogue_seq: the newest change of it; 0 where the tables lay in a folder.
        metrics: by method, then by metric, on the validation window before the cut-off.
        curves: the course of each fit, by what was fitted.
    """

    data: str
    stale_after_days: float | None = None
    longest_absence: float | None = None
    filter_already_bought: bool = False
    catalogue_log: str = ""
    catalogue_seq: int = 0
    notes: tuple[str, ...]
    counts: dict[str, int]
    seed: int
    dimensions: int
    history_length: int
    recipe: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    curves: dict[str, list[Epochs]]
    libraries: dict[str, str]

    def days_old(self, moment: int) -> float:
        """Return how many days after the data cut-off a moment lies, in seconds since 1970 UTC; not less than 0."""
        return max(moment - self.data_cut_off.timestamp(), 0) / 86_400

    def is_stale(self, moment: int) -> bool:
        """Return whether a moment lies further behind the data cut-off than the recipe allows."""
        return self.stale_after_days is not None and self.days_old(moment) > self.stale_after_days


class DatabaseMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mark of which of a database's events were read.

    Attributes:
        snapshot: a ``pg_snapshot`` of the numbers that the database gives to transactions (``events.xid``).
        at: the moment of reading.
    """

    snapshot: str
    at: datetime


class HistoriesManifest(Sealed, frozen=True, kw_only=True):
    """The manifest of a snapshot of histories; its rows are those of the bundle of the same version.

    Attributes:
        mark: of what was read, if that was a database. It is left out where it was a folder, as in every manifest that
            was sealed before there was such a mark.
    """

    mark: DatabaseMark | msgspec.UnsetType = msgspec.UNSET


AnySealed = TypeVar("AnySealed", bound=Sealed)
Decoded = TypeVar("Decoded", bound=msgspec.Struct)


def hash_files(folder: Path) -> dict[str, FileEntry]:
    """Return the SHA-256 and size of every file below a folder except its manifest, by relative name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter
        return dict(zip([str(path.relative_to(folder)) for path in paths], pool.map(_entry, paths), strict=True))


def write_manifest(folder: Path, manifest: Sealed) -> None:
    """Write the sealed manifest of a folder, indented so that people can read it too."""
    (folder / MANIFEST).write_bytes(_sealed_text(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle; raise CorruptBundle if it is missing or unreadable."""
    return _read(folder, Manifest)


def read_made(folder: Path) -> Made:
    """Return the release that a folder holds, of any format.

    Raises:
        CorruptBundle: the manifest is missing or unreadable, or altered if it is of this format.
    """
    path, text = _text(folder)
    made = _decoded(path, text, Made)
    if made.format_version == FORMAT_VERSION:
        _unsealed(path, text, Manifest)
    return made


def read_histories_manifest(folder: Path) -> HistoriesManifest:
    """Return the manifest of a snapshot of histories; raise CorruptBundle if it is missing or unreadable."""
    return _read(folder, HistoriesManifest)


def verify(folder: Path, sealed: Sealed) -> None:
    """Check every file of a folder against its manifest.

    Raises:
        CorruptBundle: naming the first file that is missing, truncated or altered.
    """
    for name, entry in sealed.files.items():
        path = folder / name
        if not path.is_file():
            raise CorruptBundle(path, "missing")
        if path.stat().st_size != entry.bytes:
            raise CorruptBundle(path, f"expected {entry.bytes} bytes, found {path.stat().st_size}")
    found = hash_files(folder)
    for name, entry in sealed.files.items():
        if found[name] != entry:
            raise CorruptBundle(folder / name, f"altered: expected SHA-256 {entry.sha256}, found {found[name].sha256}")


def open_histories(folder: Path) -> tuple[HistoriesManifest, Histories]:
    """Verify a snapshot of histories and map it into memory."""
    manifest = read_histories_manifest(folder)
    verify(folder, manifest)
    return manifest, Histories.load(folder)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ModelBundle(Closing):
    """A verified release, ready to answer; immutable from opening to closing.

    Attributes:
        rankers, offer_ranker: of products and of offers; None in a release of embeddings alone, which has no offers and
            whose towers order what they retrieve.
        redemption: how likely any offer is redeemed; None in a release of embeddings alone.
        vectors_ND: product vectors, memory-mapped.
        products: search over product vectors by inner product with a customer vector.
        similar: search over ``units_ND``, so that inner product is cosine.
        units_ND: vectors of length one by which products are similar, memory-mapped; see `training.similar`.
        origin_D: what is taken from the vector of a later product before it is brought to length one.
        product_encoder: encodes products that come later; None in a release of embeddings alone. It runs on the CPU,
            beside the thread that owns a GPU.
    """

    _kept: ClassVar[str] = "manifest"

    manifest: Manifest
    catalogue: Catalogue
    statistics: Statistics
    customer_encoder: CustomerEncoder
    rankers: RankerSessions | None
    offer_ranker: OfferRankerSession | None
    redemption: RedemptionSession | None
    vectors_ND: NDArray[np.float32]
    units_ND: NDArray[np.float32]
    origin_D: NDArray[np.float32]
    products: PlannedIndex
    similar: PlannedIndex
    product_encoder: ProductEncoder | None

    @property
    def degraded(self) -> str | None:
        """Return why the CPU searches instead of the device that was asked for; None while the device works."""
        return self.products.degraded or self.similar.degraded

    @classmethod
    def open(cls, folder: Path, device: Device, cache_bytes: int) -> Self:
        """Verify and open a bundle.

        Args:
            folder: a published bundle.
            device: where vectors are searched and customers encoded.
            cache_bytes: how much memory the indexes of eligible sets may take, for both searches together.

        Raises:
            CorruptBundle: a file is missing, truncated, altered or of another format.
            InvalidInput: a vector holds NaN or infinity.
            DeviceUnavailable: the device is not there.
        """
        manifest = read_manifest(folder)
        verify(folder, manifest)
        vectors_ND, units_ND = (load_array(folder / name) for name in (PRODUCT_VECTORS, SIMILAR_VECTORS))
        origin_D = load_array(folder / SIMILAR_ORIGIN)
        if origin_D.shape != units_ND.shape[1:] or origin_D.dtype != np.float32:
            raise CorruptBundle(folder / SIMILAR_ORIGIN, f"expected a float32 vector of {units_ND.shape[1]} numbers")
        catalogue, statistics = _loaded(folder)
        if manifest.longest_absence is not None:
            statistics = statistics._replace(longest_absence=manifest.longest_absence)
        for name, array in ((PRODUCT_VECTORS, vectors_ND), (SIMILAR_VECTORS, units_ND)):
            if len(array) != len(catalogue.products.ids):
                raise CorruptBundle(
                    folder / name, f"expected {len(catalogue.products.ids)} vectors, found {len(array)}"
                )
        ranked = RANKER in manifest.files
        return cls(
            manifest=manifest,
            catalogue=catalogue,
            statistics=statistics,
            customer_encoder=CustomerEncoder(folder / CUSTOMER_ENCODER, device, situation_sizes(catalogue)),
            rankers=RankerSessions(*(RankerSession(folder / name, device) for name in (RANKER, NEWCOMERS)))
            if ranked
            else None,
            offer_ranker=OfferRankerSession(folder / OFFER_RANKER, device) if ranked else None,
            redemption=RedemptionSession(folder / REDEMPTION, device) if ranked else None,
            vectors_ND=vectors_ND,
            units_ND=units_ND,
            origin_D=origin_D,
            products=PlannedIndex(
                vectors_ND,
                device,
                cache_bytes * 3 // 4,
                ivf=folder / IVF_INDEX if IVF_INDEX in manifest.files else None,
            ),
            similar=PlannedIndex(units_ND, device, cache_bytes // 4),
            product_encoder=ProductEncoder(folder / PRODUCT_ENCODER, "cpu", catalogue.products.attributes.sizes)
            if PRODUCT_ENCODER in manifest.files
            else None,
        )


def _loaded(folder: Path) -> tuple[Catalogue, Statistics]:
    """Return catalogue and statistics of a bundle; raise CorruptBundle if they do not fit each other."""
    try:
        catalogue, statistics = Catalogue.load(folder / CATALOG), Statistics.load(folder / STATISTICS)
        check_catalogue(folder / CATALOG, catalogue)
        check_statistics(folder / STATISTICS, statistics, catalogue)
    except (OSError, LookupError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise CorruptBundle(
            folder, "a file of the catalogue or the statistics is missing or malformed", repr(error)
        ) from error
    return catalogue, statistics


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _sealed_text(manifest: Sealed) -> bytes:
    seal = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(manifest, seal=""))).hexdigest()
    return msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, seal=seal))) + b"\n"


def _read(folder: Path, kind: type[AnySealed]) -> AnySealed:
    path, text = _text(folder)
    written = _decoded(path, text, _Format).format_version
    if written != FORMAT_VERSION:
        raise CorruptBundle(
            path,
            f"expected format version {FORMAT_VERSION}, found {written}: another Opportune trained it; train again",
        )
    return _unsealed(path, text, kind)


def _text(folder: Path) -> tuple[Path, bytes]:
    path = folder / MANIFEST
    try:
        return path, path.read_bytes()
    except FileNotFoundError:
        raise CorruptBundle(path, "missing") from None


def _decoded(path: Path, text: bytes, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptBundle(path, "not a readable manifest", str(error)) from error


def _unsealed(path: Path, text: bytes, kind: type[AnySealed]) -> AnySealed:
    found = _decoded(path, text, kind)
    if text != _sealed_text(found):
        raise CorruptBundle(path, "altered: its text does not match its own seal")
    return found
