"""The slot: what is replaced is freed, what is refused is tried again once it has changed, what is amiss is told."""

import asyncio
import gc
import logging
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from weakref import ref

import msgspec
import numpy as np
import pytest
from litestar.types import ASGIApp

from embeddings.catalogue.changes import OfferState, ProductState, Withdrawal
from embeddings.catalogue.context import Context
from embeddings.catalogue.snapshot import apply
from embeddings.customer.history import EVENT, PURCHASE, REDEMPTION
from embeddings.customer.tower_input import Situation
from embeddings.errors import CorruptBundle, OutdatedView, ReleaseClosed
from embeddings.index.planned import PlannedIndex
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving.app import create_app
from serving.metrics import Metrics
from serving.opening import open_view
from serving.pipeline import answer_batch
from serving.retrieve import Offered, RankRequest
from serving.settings import Settings
from serving.slot import ViewSlot
from serving.state.decisions import DecisionStore
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from serving.state.statements import Page, Span
from serving.view import View
from serving.watcher import ReleaseWatcher
from tests.followed import followed, publishing
from tests.integration.server import copy_store, eventually, lay_beside, point_at
from tests.world import UNTIL

Opened = Callable[[str], View]


class NoEvents(EventStore):
    """An event store that holds nothing and answers at once."""

    def __init__(self) -> None:
        super().__init__("", Invalidations(1))

    async def page(self, customer_id: str, span: Span, between: tuple[int, int], mark: int, most: int) -> Page:
        del customer_id, span, between, most
        return Page(mark, [])

    async def redeemed(self, span: Span) -> dict[str, int]:
        del span
        return {}

    async def ping(self) -> None:
        pass


@pytest.fixture
def root(published: tuple[BundleStore, Manifest], tmp_path: Path) -> Path:
    """A store of a test's own, with the first version and a second one beside it."""
    folder = copy_store(published[0], tmp_path / "store")
    lay_beside(folder, "second")
    return folder


@pytest.fixture
def settings(root: Path) -> Settings:
    return Settings(store=root, index_cache_bytes=2**22)


@pytest.fixture
def opened(settings: Settings) -> Opened:
    events = NoEvents()
    return lambda version: open_view(settings, version, events)


@pytest.fixture
def uncollected() -> Generator[None]:
    """No collector: what is freed here, is freed by whoever lets go of it last."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def mapped(folder: Path) -> set[str]:
    """The files below a folder that this process has mapped or holds open."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = {line.split(maxsplit=5)[5] for line in lines if str(folder) in line}
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            name = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        except FileNotFoundError:  # that of the listing itself
            continue
        found |= {name} if str(folder) in name else set()
    return found


def of_version(root: Path, version: str) -> set[str]:
    store = BundleStore(root)
    return mapped(store.bundle(version)) | mapped(store.histories(version))


def watched(model: View) -> list["ref[Any]"]:
    """Everything of a model that can say when it is gone."""
    bundle = model.release.bundle
    parts = [getattr(one, name) for one in (model, bundle) for name in one.__slots__ if name != "__weakref__"]
    found: list[ref[Any]] = []
    for part in [model, bundle, bundle.products.cache, bundle.similar.cache, bundle.catalogue.products.ids, *parts]:
        try:
            found.append(ref(part))
        except TypeError:  # of a kind that cannot
            continue
    assert len(found) > 12
    return found


async def call(app: ASGIApp, path: str, body: object) -> dict[str, Any]:
    sent: list[Any] = []
    content = msgspec.json.encode(body)

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(cast("Any", scope), receive, send)
    return {"status": sent[0]["status"], **msgspec.json.decode(sent[1]["body"])}


REQUESTS: list[dict[str, Any]] = [
    {"customer_id": "c017", "context": {"channel": "store", "location": "north"}, "kinds": ["product", "offer"]},
    {
        "customer_id": "c010",
        "context": {"channel": "mailer", "location": "south"},
        "filter_already_bought": True,
        "explain": True,
    },
    {"customer_id": "c011", "context": {"channel": "web"}, "items": ["p001", "p050"], "exclude": ["p050"]},
    {"context": {"channel": "store", "location": "south"}, "kinds": ["product", "offer"]},
]


# What was replaced is freed


async def expect_a_swap_to_free(
    root: Path, version: str, gone: list["ref[Any]"], watcher: ReleaseWatcher, app: ASGIApp
) -> None:
    """Swap a version for the second one; assert that nothing of it is left."""
    gc.freeze()  # as at the start of a server: what is in cycles would now stay for good
    try:
        point_at(root, "second")
        await watcher.look()
        assert (await call(app, "/v1/recommend", REQUESTS[0]))["model_version"] == "second"
        assert [one() for one in gone if one() is not None] == []
        assert of_version(root, version) == set()
        assert of_version(root, "second")
    finally:
        gc.unfreeze()


@pytest.mark.usefixtures("uncollected")
def test_a_swap_frees_all_of_the_model_that_it_replaces(root: Path, settings: Settings, opened: Opened):
    async def scenario() -> None:
        store, events = BundleStore(root), NoEvents()
        first = store.current()
        slot = ViewSlot(open_view(settings, first, events))
        watcher = ReleaseWatcher(slot, store, opened, publishing(slot))
        app = create_app(
            settings, slot, watcher, followed(slot), events, DecisionStore("", "none", events), Metrics()
        ).answer
        gone = watched(slot.current)
        for request in REQUESTS * 2:
            assert (await call(app, "/v1/recommend", request))["model_version"] == first
        await expect_a_swap_to_free(root, first, gone, watcher, app)

    asyncio.run(scenario())


LATE_OFFER = OfferState(id="late", products=("new",), starts=UNTIL, ends=UNTIL + timedelta(days=1))
NEW = ProductState(id="new", attributes={"department": "d1", "brand": "b2"}, price=2.0, locations=("north",))


@pytest.mark.usefixtures("uncollected")
def test_a_catalogue_that_changes_keeps_the_release_and_a_swap_frees_all_of_its_views(
    root: Path, settings: Settings, opened: Opened
):
    async def scenario() -> None:
        store, events = BundleStore(root), NoEvents()
        first = store.current()
        slot = ViewSlot(open_view(settings, first, events))
        watcher = ReleaseWatcher(slot, store, opened, publishing(slot))
        app = create_app(
            settings, slot, watcher, followed(slot), events, DecisionStore("", "none", events), Metrics()
        ).answer
        gone = watched(slot.current)
        for state in (NEW, msgspec.structs.replace(NEW, id="newer")):
            with slot.pinned() as before:
                slot.publish(before.following(apply(before.catalogue, [state]), 1))
                assert slot.current is not before
                assert slot.current.release is before.release
            del before
            for request in REQUESTS:
                assert (await call(app, "/v1/recommend", request))["model_version"] == first
        assert slot.swaps == 0
        await expect_a_swap_to_free(root, first, gone, watcher, app)

    asyncio.run(scenario())


@pytest.mark.parametrize("pinned", [False, True])
def test_a_catalogue_worked_out_for_a_release_that_was_replaced_meanwhile_is_not_published(
    root: Path, opened: Opened, pinned: bool
):
    async def scenario() -> None:
        slot = ViewSlot(opened(BundleStore(root).current()))
        watcher = ReleaseWatcher(slot, BundleStore(root), opened, publishing(slot))
        with slot.pinned() if pinned else nullcontext():
            late = slot.current.following(apply(slot.current.catalogue, [NEW]), 1)
            point_at(root, "second")
            await watcher.look()
            with pytest.raises(OutdatedView, match="replaced by second"):
                slot.publish(late)
            assert slot.current.version == "second"
            assert slot.current.catalogue.products.ids.row("new") is None

    asyncio.run(scenario())


def test_of_two_catalogues_worked_out_from_the_same_one_only_the_first_is_published(root: Path, opened: Opened):
    slot = ViewSlot(opened(BundleStore(root).current()))
    first, second = (
        slot.current.following(apply(slot.current.catalogue, [msgspec.structs.replace(NEW, id=one)]), 1) for one in "ab"
    )
    slot.publish(first)
    for late in (second, first):
        with pytest.raises(OutdatedView, match="catalogue 1 does not follow 1"):
            slot.publish(late)
    assert slot.current is first
    slot.publish(first.following(apply(first.catalogue, [msgspec.structs.replace(NEW, id="b")]), 1))
    assert slot.current.catalogue.products.ids.ids()[-2:] == ["a", "b"]


def test_what_comes_later_is_found_named_similar_and_gone_once_it_is_withdrawn(
    root: Path, settings: Settings, opened: Opened
):
    async def scenario() -> None:
        events = NoEvents()
        slot = ViewSlot(open_view(settings, BundleStore(root).current(), events))
        app = create_app(
            settings,
            slot,
            ReleaseWatcher(slot, BundleStore(root), opened, publishing(slot)),
            followed(slot),
            events,
            DecisionStore("", "none", events),
            Metrics(),
        ).answer
        named = {"context": {"channel": "store", "location": "north"}, "items": ["new", "p000"]}

        async def ids() -> set[str]:
            return {one["id"] for one in (await call(app, "/v1/recommend", named))["items"]}

        assert await ids() == {"p000"}
        slot.publish(slot.current.following(apply(slot.current.catalogue, [NEW]), 1))
        assert await ids() == {"new", "p000"}
        slot.publish(slot.current.following(apply(slot.current.catalogue, [Withdrawal(kind="product", id="new")]), 1))
        assert await ids() == {"p000"}

    asyncio.run(scenario())


def test_a_request_that_pinned_an_earlier_catalogue_ranks_a_history_that_knows_a_later_one(opened: Opened, root: Path):
    view = opened(BundleStore(root).current())
    slot = ViewSlot(view)
    with slot.pinned() as pinned:
        slot.publish(pinned.following(apply(pinned.catalogue, [NEW, LATE_OFFER]), 1))
        later = np.zeros(2, EVENT)
        later["at"], later["location"] = int(UNTIL.timestamp()), -1
        later["product"], later["offer"], later["type"] = (122, -1), (-1, 6), (PURCHASE, REDEMPTION)
        history = pinned.release.live.anonymous.append(later)
        place, moment = pinned.eligibility.place("north"), int(UNTIL.timestamp())
        context = Context("store", "north")
        request = RankRequest(
            view=pinned,
            history=history,
            situation=Situation(0, place.nearest, moment),
            place=place,
            products=pinned.eligibility.products(context, place, moment),
            offers=Offered(
                pinned.eligibility.offers(context, place, moment, (), history.redeemed_R), np.zeros(6, np.float32)
            ),
            limit=10,
        )
        (answer,) = answer_batch([request])
        assert len(answer) == 10
        assert all(one.row < (122 if one.kind == "product" else 6) for one in answer)


@pytest.mark.usefixtures("uncollected")
def test_what_a_request_has_pinned_is_closed_with_the_last_of_them(root: Path, opened: Opened):
    async def scenario() -> None:
        store = BundleStore(root)
        first = store.current()
        slot = ViewSlot(opened(first))
        watcher = ReleaseWatcher(slot, store, opened, publishing(slot))
        with slot.pinned() as model:
            with slot.pinned() as again:
                assert again is model
                point_at(root, "second")
                await watcher.look()
                assert slot.current is not model
            assert model.eligibility.channel("web") >= 0, "another request holds it"
            with slot.pinned() as newer:
                assert newer.version == "second"
        assert model.version == first
        with pytest.raises(ReleaseClosed, match="View is closed: it has no eligibility"):
            _ = model.eligibility
        del again
        assert of_version(root, first) == set()
        assert newer.eligibility.channel("web") >= 0

    asyncio.run(scenario())


def test_a_version_that_is_deleted_serves_on_until_it_is_replaced(root: Path, settings: Settings, opened: Opened):
    async def scenario() -> None:
        store, events = BundleStore(root), NoEvents()
        first = store.current()
        slot = ViewSlot(open_view(settings, "second", events))
        watcher = ReleaseWatcher(slot, store, opened, publishing(slot))
        app = create_app(
            settings, slot, watcher, followed(slot), events, DecisionStore("", "none", events), Metrics()
        ).answer
        assert store.prune(keep=1) == [], "of the two the newest is kept, and the current one"
        for folder in (store.bundle("second"), store.histories("second")):
            shutil.rmtree(folder)
        for request in REQUESTS:
            assert (await call(app, "/v1/recommend", request))["model_version"] == "second"
        await watcher.look()
        assert (await call(app, "/v1/recommend", REQUESTS[0]))["model_version"] == first

    asyncio.run(scenario())


def test_a_model_that_fails_in_a_request_is_not_kept_by_its_error(
    root: Path, settings: Settings, opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise RuntimeError("no such dimension")

    async def scenario() -> None:
        store, events = BundleStore(root), NoEvents()
        first = store.current()
        slot = ViewSlot(open_view(settings, first, events))
        watcher = ReleaseWatcher(slot, store, opened, publishing(slot))
        app = create_app(
            settings, slot, watcher, followed(slot), events, DecisionStore("", "none", events), Metrics()
        ).answer
        with monkeypatch.context() as patched:
            patched.setattr(PlannedIndex, "search", fail)
            patched.setattr(logging.getLogger("opportune.serve"), "disabled", True)  # pytest keeps what is logged
            assert (await call(app, "/v1/recommend", REQUESTS[0]))["status"] == 500
        point_at(root, "second")
        await watcher.look()
        gc.collect()  # a traceback and what it tells of hold each other
        assert of_version(root, first) == set()

    asyncio.run(scenario())


def test_a_release_closes_once_and_says_so_afterwards_but_arrays_stay_with_their_holders(root: Path, opened: Opened):
    model = opened("second")
    bundle, vectors_ND = model.release.bundle, model.release.bundle.vectors_ND
    total = float(vectors_ND.sum())
    model.close()
    model.close()
    bundle.close()
    assert model.version == bundle.manifest.version == "second"
    for one, name in ((model, "catalogue"), (model.release, "live"), (bundle, "catalogue"), (bundle, "degraded")):
        with pytest.raises(ReleaseClosed, match="closed"):
            getattr(one, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(bundle, "nonsense")  # noqa: B009
    assert float(vectors_ND.sum()) == total
    assert {Path(one).name for one in of_version(root, "second")} == {"products.npy"}
    del vectors_ND
    assert of_version(root, "second") == set()


def fail_late(root: Path) -> None:
    """A release whose histories are another's: noticed when all of the bundle is open."""
    histories = BundleStore(root).histories
    shutil.rmtree(histories("second"))
    shutil.copytree(histories(BundleStore(root).current()), histories("second"))


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("what", ["histories", "first search"])
def test_a_version_that_fails_half_way_leaves_nothing_open(
    root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, what: str
):
    monkeypatch.setattr(logging.getLogger("opportune.serve"), "disabled", True)  # pytest keeps what is logged

    async def scenario() -> None:
        store = BundleStore(root)
        slot = ViewSlot(opened(store.current()))
        watcher = ReleaseWatcher(slot, store, opened, publishing(slot))
        if what == "histories":
            fail_late(root)
        else:
            monkeypatch.setattr(PlannedIndex, "search", fail)
        point_at(root, "second")
        await watcher.look()
        assert watcher.refused is not None
        assert watcher.refused.version == "second"
        # The thread that opened it has a moment to go.
        await asyncio.to_thread(eventually, lambda: not of_version(root, "second"), "the files to be let go of")

    def fail(*_: object) -> None:
        raise RuntimeError("an index of nothing")

    asyncio.run(scenario())


# What is tried, and when


class Named:
    """As much of a model as the slot looks at."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.closed = False
        self.release = self
        self.catalogue = self.rows = None

    def adopt(self, _catalogue: None, _rows: None) -> None:
        pass

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Opening:
    """Opens every version but the broken ones, and notes what it was asked for."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.asked: list[str] = []
        self.made: list[Named] = []

    def __call__(self, version: str) -> View:
        self.asked.append(version)
        if version in self.broken:
            raise CorruptBundle(Path(f"/secret/{version}/vectors.npy"), "not a readable array", "secret words")
        self.made.append(Named(version))
        return cast("View", self.made[-1])


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A store of five versions without any content but a manifest."""
    for number in range(1, 6):
        for kind in ("bundles", "histories"):
            folder = tmp_path / kind / f"v{number}"
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{}")
    point_at(tmp_path, "v1")
    return tmp_path


def watched_slot(root: Path, opening: Callable[[str], View], version: str = "v1") -> tuple[ViewSlot, ReleaseWatcher]:
    slot = ViewSlot(cast("View", Named(version)))
    return slot, ReleaseWatcher(slot, BundleStore(root), opening, publishing(slot))


def looks(watcher: ReleaseWatcher, opening: Opening, times: int = 1) -> list[str]:
    """Look so often; returns which versions were tried in these looks."""
    before = len(opening.asked)

    async def look() -> None:
        for _ in range(times):
            await watcher.look()

    asyncio.run(look())
    return opening.asked[before:]


def test_versions_published_one_upon_another_are_taken_as_they_are_found_and_closed_as_they_are_replaced(
    versions: Path,
):
    opening, told = Opening(), list[str]()

    def publishing(version: str) -> View:
        if version == "v2":  # three more while this one is being opened
            for newer in ("v3", "v4", "v5"):
                point_at(versions, newer)
        return opening(version)

    slot, watcher = watched_slot(versions, publishing)
    slot.on_swap = told.append

    async def look() -> None:
        for _ in range(3):
            await watcher.look()

    point_at(versions, "v2")
    asyncio.run(look())
    assert opening.asked == told == ["v2", "v5"]
    assert slot.swaps == 2
    assert [one.closed for one in opening.made] == [True, False]
    point_at(versions, "v4")  # the version before
    assert looks(watcher, opening) == ["v4"]
    assert [one.closed for one in opening.made] == [True, True, False]


def touch(versions: Path, name: str) -> None:
    path = versions / name
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize("changed", ["CURRENT", "bundles/v2/manifest.json", "histories/v2/manifest.json"])
def test_a_refused_version_is_tried_again_once_its_files_or_current_have_changed(versions: Path, changed: str):
    opening = Opening("v2")
    slot, watcher = watched_slot(versions, opening)
    point_at(versions, "v2")
    assert looks(watcher, opening, times=5) == ["v2"]
    touch(versions, changed)
    assert looks(watcher, opening) == [], "it may be changing still"
    assert looks(watcher, opening, times=5) == ["v2"]
    opening.broken.clear()
    assert looks(watcher, opening, times=5) == [], "nothing has changed since"
    touch(versions, changed)
    assert looks(watcher, opening, times=2) == ["v2"]
    assert (slot.current.version, watcher.refused) == ("v2", None)


def test_a_file_that_comes_back_has_a_refused_version_tried_again(versions: Path):
    opening = Opening("v2")
    slot, watcher = watched_slot(versions, opening)
    (versions / "bundles" / "v2" / "manifest.json").unlink()
    point_at(versions, "v2")
    assert looks(watcher, opening, times=3) == ["v2"]
    opening.broken.clear()
    (versions / "bundles" / "v2" / "manifest.json").write_text("{}")
    assert looks(watcher, opening, times=2) == ["v2"]
    assert slot.current.version == "v2"


def test_a_version_that_was_deleted_while_it_was_opened_makes_way_for_the_newest(versions: Path):
    opening = Opening()

    def deleting(version: str) -> View:
        if version == "v2":
            shutil.rmtree(versions / "bundles" / "v2")
            point_at(versions, "v3")
            raise FileNotFoundError(version)
        return opening(version)

    slot, watcher = watched_slot(versions, deleting)

    async def look() -> None:
        for _ in range(2):
            await watcher.look()

    point_at(versions, "v2")
    asyncio.run(look())
    assert (slot.current.version, watcher.refused) == ("v3", None)


def test_a_refusal_names_the_file_and_nothing_of_the_machine_but_in_the_log(
    versions: Path, caplog: pytest.LogCaptureFixture
):
    opening = Opening("v2")
    _, watcher = watched_slot(versions, opening)
    point_at(versions, "v2")
    looks(watcher, opening, times=5)
    assert watcher.refused is not None
    assert watcher.refused[:2] == ("v2", "vectors.npy: not a readable array")
    assert [record.getMessage() for record in caplog.records] == [
        "refused version v2, still serving v1: /secret/v2/vectors.npy: not a readable array: secret words"
    ]


def delete_store(root: Path) -> None:
    shutil.rmtree(root)


def fill_with_noise(root: Path) -> None:
    (root / "CURRENT").write_bytes(b"\xff\xfe" * 40)


def make_folder(root: Path) -> None:
    (root / "CURRENT").unlink()
    (root / "CURRENT").mkdir()


def name_at_length(root: Path) -> None:
    (root / "CURRENT").write_text("v" * 300)


def empty(root: Path) -> None:
    (root / "CURRENT").write_text("")


@pytest.mark.parametrize("damage", [delete_store, fill_with_noise, make_folder, name_at_length, empty])
def test_a_store_that_cannot_be_read_is_told_once_and_leaves_the_model_in_service(
    versions: Path,
    tmp_path_factory: pytest.TempPathFactory,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
):
    kept = shutil.copytree(versions, tmp_path_factory.mktemp("kept") / "store")
    opening = Opening()
    slot, watcher = watched_slot(versions, opening)
    caplog.set_level(logging.INFO)
    damage(versions)
    assert looks(watcher, opening, times=5) == []
    assert watcher.unreadable is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    shutil.rmtree(versions, ignore_errors=True)
    shutil.copytree(kept, versions)
    point_at(versions, "v2")
    looks(watcher, opening, times=5)
    assert (slot.current.version, watcher.unreadable) == ("v2", None)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "INFO"]


def test_a_version_that_opens_and_cannot_be_published_is_refused(versions: Path):
    async def fail(_view: View) -> None:
        raise ZeroDivisionError

    opening = Opening()
    slot = ViewSlot(cast("View", Named("v1")))
    watcher = ReleaseWatcher(slot, BundleStore(versions), opening, fail)
    point_at(versions, "v2")
    assert looks(watcher, opening, times=3) == ["v2"]
    assert slot.current.version == "v1"
    assert watcher.refused is not None
    assert watcher.refused.version == "v2"
    assert [one.closed for one in opening.made] == [True]


# What a worker that replaces another serves


def joined(slot: ViewSlot, watcher: ReleaseWatcher, version: str) -> bool:
    return asyncio.run(watcher.join(version, publishing(slot)))


@pytest.mark.parametrize("current", ["v1", "v4", None])
def test_it_serves_what_the_others_serve_whatever_current_says(versions: Path, current: str | None):
    if current is None:
        (versions / "CURRENT").unlink()
    else:
        point_at(versions, current)
    opening = Opening("v4")
    slot, watcher = watched_slot(versions, opening)
    assert joined(slot, watcher, "v3")
    assert slot.current.version == "v3"
    assert opening.asked == ["v3"]


def test_it_serves_the_current_version_where_that_of_the_others_is_gone(versions: Path):
    point_at(versions, "v4")
    slot, watcher = watched_slot(versions, Opening("v3"))
    assert joined(slot, watcher, "v3")
    assert slot.current.version == "v4"


@pytest.mark.parametrize("current", ["v3", None])
def test_it_says_so_where_neither_can_be_opened(versions: Path, current: str | None):
    if current is None:
        (versions / "CURRENT").unlink()
    else:
        point_at(versions, current)
    slot, watcher = watched_slot(versions, Opening("v3"))
    assert not joined(slot, watcher, "v3")
    assert slot.current.version == "v1"


def test_it_opens_nothing_where_the_others_serve_what_it_has(versions: Path):
    opening = Opening()
    slot, watcher = watched_slot(versions, opening)
    assert joined(slot, watcher, "v1")
    assert opening.asked == []
