"""Another release is published while the service answers: taken without a failed request, or refused by name."""

import asyncio
import shutil
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from embeddings.catalogue.changes import LocationState
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.snapshot import apply
from embeddings.release.bundle import CATALOG, Manifest, hash_files, read_manifest, write_manifest
from embeddings.release.store import BundleStore
from serving.slot import ViewSlot
from serving.view import View
from serving.watcher import ReleaseWatcher
from tests.followed import publishing
from tests.integration.server import (
    Postgres,
    Server,
    copy_store,
    event,
    eventually,
    lay_beside,
    point_at,
    release,
    serve,
)
from tests.world import UNTIL, store

GAP = 31.25
"""The usual gap of every product in a second release: it shows in every explanation which release has answered."""


def readiness(server: Server) -> dict[str, Any]:
    return server.client.get("/readyz").json()


def serves(server: Server, version: str) -> bool:
    return readiness(server)["model_version"] == version


def gaps(answer: dict[str, Any]) -> set[float]:
    """Every shown product's usual gap, as the ranker read it."""
    return {item["explanation"]["features"]["product_gap"] for item in answer["items"]}


def test_a_release_is_taken_under_load_without_a_failed_or_a_mixed_answer(own: Server):
    old, new = readiness(own)["model_version"], "second"
    assert GAP not in gaps(own.recommend("c000", explain=True))
    assert own.report(event("c017", "p111", UNTIL + timedelta(hours=1)))["accepted"] == 1

    def load(number: int) -> list[str]:
        versions: list[str] = []
        while versions.count(new) < 10:
            assert len(versions) < 20_000
            customer = number + 4 * (len(versions) % 30)
            answer = own.recommend(f"c{customer:03d}", "store", store(customer), explain=True)
            assert len(answer["items"]) == 10
            assert answer["personalised"]
            assert not answer["degraded"]
            version = answer["model_version"]
            assert {gap == GAP for gap in gaps(answer)} == {version == new}
            versions.append(version)
        return versions

    with ThreadPoolExecutor(4) as threads:
        loads = [threads.submit(load, number) for number in range(4)]
        eventually(lambda: (own.metric("opportune_batches_total") or 0) > 10, "some load")
        release(own.store, new, GAP)
        for done in loads:
            versions = done.result()
            turn = versions.index(new)
            assert set(versions[:turn]) == {old}
            assert set(versions[turn:]) == {new}

    assert own.metric("opportune_model_swaps_total") == 1
    assert own.metric("opportune_model", version=new) == 1
    assert own.client.get("/v1/model").json()["version"] == new
    after = own.recommend("c017", at=UNTIL + timedelta(hours=2), limit=100)
    (bought,) = [item for item in after["items"] if item["id"] == "p111"]
    assert bought["reasons"][0]["code"] == "bought_before", "an accepted event outlives the model that took it"


def truncate(bundle: Path) -> str:
    path = bundle / "vectors" / "products.npy"
    path.write_bytes(path.read_bytes()[:-1])
    return "products.npy"


def alter(bundle: Path) -> str:
    path = bundle / "customer.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "customer.onnx"


def remove(bundle: Path) -> str:
    (bundle / "product.onnx").unlink()
    return "product.onnx"


def alter_histories(bundle: Path) -> str:
    path = bundle.parents[1] / "histories" / bundle.name / "events.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    return "events.npy"


def edit_manifest(bundle: Path) -> str:
    path = bundle / "manifest.json"
    text = path.read_text()
    assert '"history_length": 16' in text
    path.write_text(text.replace('"history_length": 16', '"history_length": 17'))
    return "manifest.json"


def rename(bundle: Path) -> str:
    """Not the version that it claims to be: the bundle of the first release under another name."""
    first = min(path for path in bundle.parent.iterdir() if path.name[0].isdigit())
    shutil.rmtree(bundle)
    shutil.copytree(first, bundle)
    return "manifest.json"


DAMAGES: list[Callable[[Path], str]] = [truncate, alter, remove, alter_histories, edit_manifest, rename]


@pytest.fixture(scope="module")
def steadfast(
    published: tuple[BundleStore, Manifest], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Server]:
    """One server that is shown one bad release after another."""
    folder = copy_store(published[0], tmp_path_factory.mktemp("steadfast"))
    server = Server(folder, "--database", postgres.database())
    yield server
    server.stop()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_release_is_refused_by_name_and_a_good_one_taken_after(
    steadfast: Server, damage: Callable[[Path], str]
):
    old, swaps = readiness(steadfast)["model_version"], steadfast.metric("opportune_model_swaps_total")
    bad = f"bad-{damage.__name__}"
    file_name = damage(lay_beside(steadfast.store, bad))
    point_at(steadfast.store, bad)
    refused = eventually(lambda: readiness(steadfast)["refused_version"], "the refusal")
    assert refused.startswith(f"{bad}: ")
    assert file_name in refused
    assert (readiness(steadfast)["ready"], readiness(steadfast)["model_version"]) == (True, old)
    assert steadfast.metric("opportune_model_refused") == 1
    assert steadfast.recommend("c017")["model_version"] == old
    assert "/" not in refused.removeprefix(f"{bad}: "), "where the store lies is nobody's business"
    strict = steadfast.client.get("/readyz?strict")
    assert (strict.status_code, strict.json()["ready"]) == (503, False)

    shutil.rmtree(steadfast.store / "bundles" / bad)
    good = f"good-{damage.__name__}"
    point_at(steadfast.store, old)
    release(steadfast.store, good, GAP)
    eventually(lambda: serves(steadfast, good), "the good release")
    assert readiness(steadfast)["refused_version"] is None
    assert steadfast.metric("opportune_model_refused") == 0
    assert steadfast.metric("opportune_model_swaps_total") == (swaps or 0) + 1


def test_pointing_back_takes_the_old_release_again_and_forgets_the_refusal(steadfast: Server):
    current = readiness(steadfast)["model_version"]
    alter(lay_beside(steadfast.store, "spoilt"))
    point_at(steadfast.store, "spoilt")
    assert "spoilt" in eventually(lambda: readiness(steadfast)["refused_version"], "the refusal")
    point_at(steadfast.store, current)
    eventually(lambda: readiness(steadfast)["refused_version"] is None, "the refusal to be forgotten")
    first = min(path.name for path in (steadfast.store / "bundles").iterdir() if path.name[0].isdigit())
    BundleStore(steadfast.store).rollback(first)
    eventually(lambda: serves(steadfast, first), "the first release")


def test_a_refused_release_is_taken_once_its_file_is_mended(steadfast: Server):
    bundle = lay_beside(steadfast.store, "mended")
    sound = (bundle / "customer.onnx").read_bytes()
    alter(bundle)
    point_at(steadfast.store, "mended")
    eventually(lambda: readiness(steadfast)["refused_version"], "the refusal")
    (bundle / "customer.onnx").write_bytes(sound)
    eventually(lambda: serves(steadfast, "mended"), "the mended release")


def never_published(current: Path) -> None:
    current.write_text("never-published")


def make_folder(current: Path) -> None:
    current.unlink()
    current.mkdir()


@pytest.mark.parametrize("damage", [never_published, make_folder, Path.unlink])
def test_a_store_that_cannot_be_read_is_told_while_the_old_release_serves(
    steadfast: Server, damage: Callable[[Path], None]
):
    old, current = readiness(steadfast)["model_version"], steadfast.store / "CURRENT"
    damage(current)
    told = eventually(lambda: readiness(steadfast)["unreadable_store"], "the fault")
    assert str(steadfast.store) not in told
    assert steadfast.metric("opportune_store_unreadable") == 1
    assert (readiness(steadfast)["ready"], steadfast.client.get("/readyz?strict").status_code) == (True, 503)
    assert steadfast.recommend("c017")["model_version"] == old
    if current.is_dir():
        current.rmdir()
    point_at(steadfast.store, old)
    eventually(lambda: readiness(steadfast)["unreadable_store"] is None, "the store to be read again")
    assert steadfast.metric("opportune_store_unreadable") == 0
    assert steadfast.client.get("/readyz?strict").status_code == 200


class Named:
    """As much of a model as the slot looks at."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.release = self
        self.catalogue = self.rows = None

    def adopt(self, _catalogue: None, _rows: None) -> None:
        pass

    def close(self) -> None:
        pass


def test_whatever_opening_a_release_raises_the_next_one_is_taken():
    releases = ["first", "broken", "good"]
    opened: list[str] = []

    def current() -> str:
        if len(releases) > 1:
            releases.pop(0)
        if releases[0] == "broken" and not opened:
            opened.append("unreadable")
            releases.insert(0, "broken")
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")
        return releases[0]

    def open_version(version: str) -> View:
        opened.append(version)
        if version == "broken":
            raise RuntimeError("no such dimension")
        return cast("View", Named(version))

    async def watch() -> None:
        slot = ViewSlot(cast("View", Named("first")))
        store = cast("BundleStore", SimpleNamespace(current=current, stamp=str))
        watcher = ReleaseWatcher(slot, store, open_version, publishing(slot))
        watching = asyncio.create_task(watcher.watch(0))
        async with asyncio.timeout(30):
            while slot.current.version != "good":
                assert not watching.done()
                await asyncio.sleep(0)
        watching.cancel()
        assert watcher.refused is None
        assert slot.swaps == 1

    asyncio.run(watch())
    assert opened == ["unreadable", "broken", "good"]


# At start


def refused_at_start(folder: Path, log: Path, database: str) -> str:
    process, _ = serve(folder, log, "--database", database)
    assert process.wait(30) == 2, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("damage", [truncate, alter_histories])
def test_a_damaged_release_ends_the_start_naming_the_file(
    own_store: Path, postgres: Postgres, tmp_path: Path, damage: Callable[[Path], str]
):
    file_name = damage(next((own_store / "bundles").iterdir()))
    assert file_name in refused_at_start(own_store, tmp_path / "log", postgres.database())


def test_an_empty_store_ends_the_start_saying_what_to_do_and_stays_empty(tmp_path: Path):
    empty = tmp_path / "empty"
    process, _ = serve(empty, tmp_path / "log")
    assert process.wait(30) == 2
    assert f"opportune-train --store {empty}" in (tmp_path / "log").read_text()
    assert not empty.exists()


def test_a_database_that_does_not_exist_ends_the_start(own_store: Path, postgres: Postgres, tmp_path: Path):
    assert "nonesuch" in refused_at_start(own_store, tmp_path / "log", postgres.url("nonesuch"))


def test_a_database_that_does_not_answer_ends_the_start(own_store: Path, tmp_path: Path):
    url = f"postgresql://postgres@/postgres?host={tmp_path}"
    assert "PostgreSQL does not answer" in refused_at_start(own_store, tmp_path / "log", url)


def test_a_release_is_opened_whose_busiest_location_is_closed(own_store: Path, postgres: Postgres):
    bundles = BundleStore(own_store)
    bundle = bundles.bundle(bundles.current())
    closed = [LocationState(id=one, closed=True) for one in ("north", "south")]
    apply(Catalogue.load(bundle / CATALOG), closed).save(bundle / "closed")  # not into files that are mapped
    shutil.rmtree(bundle / CATALOG)
    (bundle / "closed").rename(bundle / CATALOG)
    write_manifest(bundle, replace(read_manifest(bundle), files=hash_files(bundle)))
    server = Server(own_store, "--database", postgres.database())
    try:
        assert server.recommend("c017")["items"]
        answer = server.client.post("/v1/recommend", json={"context": {"channel": "store", "location": "north"}})
        assert (answer.status_code, answer.json()["field"]) == (422, "context.location")
    finally:
        server.stop()
