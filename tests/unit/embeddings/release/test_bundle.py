import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embeddings.customer.history import Histories
from embeddings.errors import CorruptBundle
from embeddings.release.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    HistoriesManifest,
    Manifest,
    ModelBundle,
    Sealed,
    hash_files,
    open_histories,
    read_histories_manifest,
    read_manifest,
    verify,
    write_manifest,
)
from embeddings.release.store import BundleStore
from tests.world import CUSTOMERS

Published = tuple[BundleStore, Manifest]

PARTS = ["bundle", "histories"]
READ: dict[str, Callable[[Path], Sealed]] = {"bundle": read_manifest, "histories": read_histories_manifest}


@pytest.fixture
def release(published: Published, tmp_path: Path) -> Path:
    """A copy of the release that a test may damage: ``bundle/`` and ``histories/``."""
    store, manifest = published
    shutil.copytree(store.bundle(manifest.version), tmp_path / "bundle")
    shutil.copytree(store.histories(manifest.version), tmp_path / "histories")
    return tmp_path


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def open_part(release: Path, part: str) -> None:
    if part == "bundle":
        ModelBundle.open(release / part, "cpu", cache_bytes=2**20)
    else:
        open_histories(release / part)


def flip(path: Path, place: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.write_bytes(content)


def rewrite(manifest: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as a person with an editor would, leaving its seal."""
    content = json.loads(manifest.read_text())
    change(content)
    manifest.write_text(json.dumps(content, indent=2) + "\n")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "lengthened": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "first byte flipped": lambda path: flip(path, 0),
    "middle byte flipped": lambda path: flip(path, path.stat().st_size // 2),
    "last byte flipped": lambda path: flip(path, -1),
    "replaced by a folder": replace_by_folder,
}
SAID = {
    "deleted": "missing",
    "replaced by a folder": "missing",
    "emptied": "bytes, found 0",
    "truncated": "bytes, found",
    "lengthened": "bytes, found",
}


@pytest.mark.parametrize("part", PARTS)
def test_what_was_published_verifies_and_opens(part: str, release: Path):
    verify(release / part, READ[part](release / part))
    open_part(release, part)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", PARTS)
def test_any_damage_to_any_file_is_refused_with_its_name(part: str, damage: str, release: Path):
    folder = release / part
    manifest = READ[part](folder)
    checked = [path for path in files(folder) if path.name != MANIFEST]
    assert {str(path.relative_to(folder)) for path in checked} == manifest.files.keys()
    for path in checked:
        content = path.read_bytes()
        DAMAGES[damage](path)
        with pytest.raises(CorruptBundle) as refused:
            verify(folder, manifest)
        assert refused.value.path == path
        assert SAID.get(damage, "altered") in refused.value.problem
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)
    verify(folder, manifest)


def shorter(array: np.ndarray) -> np.ndarray:
    return array[:-1]


def of_another_dtype(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int16 if array.dtype != np.int16 else np.int64)


def beyond(array: np.ndarray) -> np.ndarray:
    """As it was, but for one number that is too large for anything, or no number."""
    broken = array.copy()
    broken.flat[-1] = np.nan if broken.dtype.kind == "f" else np.iinfo(broken.dtype).max
    return broken


OF_PRODUCTS = {"price", "codes", "groups", "complements-baskets"}
ANY_NUMBER = {"coordinates", "starts", "ends", "uses", "kinds", "why", "ids-text", "ids-hashes", *OF_PRODUCTS}
"""Of these any number is one, as far as the other files say."""


@pytest.mark.parametrize("damage", [shorter, of_another_dtype, beyond])
@pytest.mark.parametrize("folder", ["catalogue", "statistics"])
def test_arrays_that_do_not_fit_are_refused_by_name_though_they_are_sealed(
    folder: str, damage: Callable[[np.ndarray], np.ndarray], release: Path
):
    bundle, manifest = release / "bundle", read_manifest(release / "bundle")
    for path in sorted((bundle / folder).rglob("*.npy")):
        kept, array = path.read_bytes(), np.load(path)
        if not array.size or (damage is beyond and (path.stem in ANY_NUMBER or array.dtype == np.bool_)):
            continue
        np.save(path, damage(array))
        write_manifest(bundle, msgspec.structs.replace(manifest, files=hash_files(bundle)))
        with pytest.raises(CorruptBundle) as refused:
            ModelBundle.open(bundle, "cpu", cache_bytes=2**20)
        assert refused.value.path.parent == path.parent, path
        path.write_bytes(kept)


@pytest.mark.parametrize("name", ["catalogue/locations/why.npy", "statistics/month.npy", "statistics/attributes.json"])
def test_a_bundle_that_lacks_a_file_is_refused_though_it_is_sealed(name: str, release: Path):
    bundle = release / "bundle"
    (bundle / name).unlink()
    write_manifest(bundle, msgspec.structs.replace(read_manifest(bundle), files=hash_files(bundle)))
    with pytest.raises(CorruptBundle):
        ModelBundle.open(bundle, "cpu", cache_bytes=2**20)


@pytest.mark.parametrize("part", PARTS)
def test_opening_verifies_first(part: str, release: Path):
    last = max(path for path in files(release / part) if path.name != MANIFEST)
    flip(last, -1)
    with pytest.raises(CorruptBundle) as refused:
        open_part(release, part)
    assert refused.value.path == last


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if "folder" not in damage])
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_manifest_is_refused(part: str, damage: str, release: Path):
    manifest = release / part / MANIFEST
    DAMAGES[damage](manifest)
    with pytest.raises(CorruptBundle) as refused:
        open_part(release, part)
    assert refused.value.path == manifest


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80], ids=["low bit", "case", "high bit"])
def test_no_byte_of_a_manifest_can_change_unseen(mask: int, release: Path):
    manifest = release / "histories" / MANIFEST
    content = manifest.read_bytes()
    for place in range(len(content)):
        manifest.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
        with pytest.raises(CorruptBundle):
            read_histories_manifest(manifest.parent)


def better(content: dict[str, Any]) -> None:
    content["metrics"]["served"]["ndcg@10"] += 0.01


def later(content: dict[str, Any]) -> None:
    content["data_cut_off"] = "2025-06-02T00:00:00Z"


def other_file(content: dict[str, Any]) -> None:
    content["files"]["customer.onnx"]["sha256"] = "0" * 64


def fewer_files(content: dict[str, Any]) -> None:
    del content["files"]["customer.onnx"]


def without_format(content: dict[str, Any]) -> None:
    del content["format_version"]


def remark(content: dict[str, Any]) -> None:
    content["remark"] = "checked by hand"


@pytest.mark.parametrize("change", [better, later, other_file, fewer_files, without_format, remark])
def test_an_altered_manifest_is_refused_by_its_seal(change: Callable[[dict[str, Any]], None], release: Path):
    manifest = release / "bundle" / MANIFEST
    rewrite(manifest, change)
    with pytest.raises(CorruptBundle, match=r"altered: .* seal") as refused:
        read_manifest(release / "bundle")
    assert refused.value.path == manifest


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("found", [FORMAT_VERSION - 1, FORMAT_VERSION + 1])
def test_another_format_version_is_refused_even_if_sealed(part: str, found: int, release: Path):
    folder = release / part
    write_manifest(folder, msgspec.structs.replace(READ[part](folder), format_version=found))
    with pytest.raises(CorruptBundle, match=f"format version {FORMAT_VERSION}, found {found}"):
        open_part(release, part)


def test_of_another_format_nothing_else_is_expected(release: Path):
    def older(content: dict[str, Any]) -> None:
        content["format_version"] = FORMAT_VERSION - 1
        del content["curves"]

    rewrite(release / "bundle" / MANIFEST, older)
    with pytest.raises(CorruptBundle, match=f"expected format version {FORMAT_VERSION}"):
        read_manifest(release / "bundle")


def test_one_kind_of_manifest_is_not_taken_for_the_other(release: Path):
    with pytest.raises(CorruptBundle, match="not a readable manifest"):
        read_manifest(release / "histories")
    with pytest.raises(CorruptBundle, match="altered"):
        read_histories_manifest(release / "bundle")


def test_a_manifest_comes_back_as_it_was_written_and_people_can_read_it(published: Published, tmp_path: Path):
    manifest = published[1]
    write_manifest(tmp_path, manifest)
    again = read_manifest(tmp_path)
    assert msgspec.structs.replace(again, seal="") == manifest
    text = (tmp_path / MANIFEST).read_text()
    assert text.count("\n") > 100
    assert json.loads(text)["version"] == manifest.version


def test_hashes_cover_every_file_but_the_manifest(tmp_path: Path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "abc").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / MANIFEST).write_bytes(b"{}")
    found = {name: (entry.sha256[:8], entry.bytes) for name, entry in hash_files(tmp_path).items()}
    assert found == {"deep/er/abc": ("ba7816bf", 3), "empty": ("e3b0c442", 0)}


def test_nothing_in_a_release_is_pickled(release: Path):
    for path in files(release):
        assert path.read_bytes()[:1] != b"\x80", path
        assert path.suffix in {".npy", ".json", ".onnx", ".faiss", ".png"}, path
        if path.suffix == ".npy":
            assert not np.load(path, allow_pickle=False).dtype.hasobject, path


def traces(folder: Path, customers: Histories) -> Iterator[str]:
    """Every customer's id, or hash of an id, in the bytes of a folder's files."""
    ids = [one.encode() for one in customers.customers.ids()]
    hashes = [one.tobytes() for one in customers.customers.arrays()["hashes"]]
    pattern = re.compile(b"|".join(re.escape(one) for one in ids + hashes))
    for path in files(folder):
        # Four hexadecimal digits of a digest may look like an id.
        content = re.sub(rb'"[0-9a-f]{64}"|Z-[0-9a-f]{8}"', b"", path.read_bytes())
        yield from (f"{path.name}: {found!r}" for found in pattern.findall(content))


def test_the_bundle_holds_no_trace_of_any_customer(release: Path):
    customers = Histories.load(release / "histories")
    assert len(customers.customers) == CUSTOMERS
    assert len(list(traces(release / "histories", customers))) == 2 * CUSTOMERS  # the search finds what is there
    assert list(traces(release / "bundle", customers)) == []


def test_an_open_bundle_is_mapped_and_read_only(release: Path):
    bundle = ModelBundle.open(release / "bundle", "cpu", cache_bytes=2**20)
    for array in (bundle.vectors_ND, bundle.units_ND):
        assert isinstance(array, np.memmap) or isinstance(array.base, np.memmap)
        assert not array.flags.writeable
    assert bundle.vectors_ND.shape == (bundle.manifest.counts["products"], bundle.manifest.dimensions)
    np.testing.assert_allclose(np.linalg.norm(bundle.units_ND, axis=1), 1, rtol=1e-5)
    with pytest.raises(AttributeError):
        bundle.manifest = bundle.manifest  # pyright: ignore[reportAttributeAccessIssue]


def test_a_release_and_its_histories_are_of_one_version(release: Path):
    manifest, past = read_manifest(release / "bundle"), read_histories_manifest(release / "histories")
    assert isinstance(past, HistoriesManifest)
    assert (past.version, past.data_cut_off) == (manifest.version, manifest.data_cut_off)
