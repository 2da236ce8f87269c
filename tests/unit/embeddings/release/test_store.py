import fcntl
import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embeddings.errors import CorruptBundle, EmptyStore, InvalidInput
from embeddings.release.bundle import (
    BUNDLE,
    FORMAT_VERSION,
    HISTORIES,
    MANIFEST,
    Manifest,
    hash_files,
    open_histories,
    read_histories_manifest,
    read_manifest,
    verify,
    write_manifest,
)
from embeddings.release.store import BundleStore

Published = tuple[BundleStore, Manifest]


LEFT_OUT = shutil.ignore_patterns("products", "locations", "offers", "vectors", "product.onnx")


class Crash(BaseException):
    """The machine stops: nothing catches this."""


class Desk:
    """A store of its own for one test, and releases to publish into it: true ones, less most of their files."""

    def __init__(self, root: Path, published: Published) -> None:
        self.root = root
        self.store = BundleStore(root)
        origin, manifest = published
        self._parts = {BUNDLE: origin.bundle(manifest.version), HISTORIES: origin.histories(manifest.version)}
        self._manifest = manifest

    def stage(self, version: str, histories: str | None = None) -> Path:
        """Stage a release; ``v2`` was created two days after ``v0``."""
        staged = self.store.stage()
        for part, source in self._parts.items():
            shutil.copytree(source, staged / part, dirs_exist_ok=True, ignore=LEFT_OUT)
        past = read_histories_manifest(staged / HISTORIES)
        created_at = self._manifest.created_at + timedelta(days=int(version[1:]))
        write_manifest(
            staged / BUNDLE,
            msgspec.structs.replace(
                self._manifest, version=version, created_at=created_at, files=hash_files(staged / BUNDLE)
            ),
        )
        write_manifest(
            staged / HISTORIES, msgspec.structs.replace(past, version=histories or version, created_at=created_at)
        )
        return staged

    def publish(self, *versions: str) -> None:
        for version in versions:
            assert self.store.publish(self.stage(version)) == version

    def check(self, version: str) -> None:
        """Everything that reads a version finds it whole."""
        verify(self.store.bundle(version), read_manifest(self.store.bundle(version)))
        assert open_histories(self.store.histories(version))[0].version == version

    def names(self, part: str) -> list[str]:
        return sorted(path.name for path in (self.root / part).glob("*"))


@pytest.fixture
def desk(tmp_path: Path, published: Published) -> Desk:
    return Desk(tmp_path / "store", published)


def damage(folder: Path, name: str = "customer.onnx") -> Path:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def tree(folder: Path) -> dict[str, object]:
    return {**hash_files(folder), MANIFEST: (folder / MANIFEST).read_bytes()}


# Publishing


def test_what_is_published_is_current_and_whole(desk: Desk):
    staged = desk.stage("v1")
    bundle, histories = tree(staged / BUNDLE), tree(staged / HISTORIES)
    assert desk.store.publish(staged) == "v1"
    assert desk.store.current() == "v1"
    assert (tree(desk.store.bundle("v1")), tree(desk.store.histories("v1"))) == (bundle, histories)
    assert not staged.exists()


def test_histories_are_closed_to_others_whatever_the_umask_and_whenever_they_were_published(desk: Desk):
    before = os.umask(0)
    try:
        desk.publish("v1")
        histories = desk.store.histories("v1").parent
        for path in (histories, *histories.rglob("*")):
            path.chmod(0o777)
        desk.publish("v2")
    finally:
        os.umask(before)
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (histories, *histories.rglob("*"))}
    assert modes == {True: 0o700, False: 0o600}


def test_a_later_release_becomes_current_beside_the_earlier_one(desk: Desk):
    desk.publish("v1", "v2")
    assert desk.store.current() == "v2"
    assert desk.store.versions() == ["v1", "v2"]
    desk.check("v1")
    desk.check("v2")


def test_versions_come_in_the_order_of_their_making_not_of_their_names(desk: Desk):
    desk.publish("v10", "v9")
    assert desk.store.versions() == ["v9", "v10"]
    assert desk.store.current() == "v9"


def test_publishing_the_same_release_twice_changes_nothing(desk: Desk):
    desk.publish("v1")
    before = tree(desk.store.bundle("v1"))
    desk.publish("v1")
    assert (desk.store.current(), desk.store.versions()) == ("v1", ["v1"])
    assert tree(desk.store.bundle("v1")) == before
    desk.check("v1")
    assert desk.names("staging") == []


def test_releases_of_an_earlier_format_are_listed_and_pruned_but_not_served(desk: Desk):
    desk.publish("v1", "v2")
    path = desk.store.bundle("v1") / MANIFEST
    manifest = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**manifest, "format_version": 1, "long_gone": True}))
    assert [(one.version, one.format_version) for one in desk.store.releases()] == [("v1", 1), ("v2", FORMAT_VERSION)]
    with pytest.raises(CorruptBundle, match="found 1"):
        desk.store.rollback()
    assert desk.store.current() == "v2"
    assert desk.store.prune(1) == ["v1"]
    assert desk.names("bundles") == desk.names("histories") == ["v2"]


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path):
    with pytest.raises(EmptyStore, match="opportune-train --store"):
        BundleStore(tmp_path / "nothing").current()
    assert BundleStore(tmp_path / "nothing").versions() == []


@pytest.mark.parametrize(("part", "name"), [(BUNDLE, "customer.onnx"), (HISTORIES, "events.npy"), (BUNDLE, MANIFEST)])
def test_a_damaged_release_is_not_published(part: str, name: str, desk: Desk):
    desk.publish("v1")
    staged = desk.stage("v2")
    path = damage(staged / part, name)
    with pytest.raises(CorruptBundle) as refused:
        desk.store.publish(staged)
    assert refused.value.path == path
    assert (desk.store.current(), desk.store.versions()) == ("v1", ["v1"])


def test_histories_of_another_version_are_not_published(desk: Desk):
    staged = desk.stage("v1", histories="v2")
    with pytest.raises(CorruptBundle, match="belongs to version v2, not v1"):
        desk.store.publish(staged)
    assert desk.store.versions() == []


def test_a_release_damaged_since_does_not_become_current_again(desk: Desk):
    desk.publish("v1", "v2")
    path = damage(desk.store.bundle("v1"))
    with pytest.raises(CorruptBundle) as refused:
        desk.publish("v1")
    assert refused.value.path == path
    assert desk.store.current() == "v2"


def test_every_file_is_forced_to_disk_before_the_first_rename_and_current_changes_last(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    steps: list[tuple[str, str]] = []
    rename = Path.rename

    def record_fsync(path: Path) -> None:
        steps.append(("fsync", str(path.relative_to(desk.root))))

    def record_rename(path: Path, target: Path) -> Path:
        steps.append(("rename", str(target.relative_to(desk.root))))
        return rename(path, target)

    staged = desk.stage("v1")
    inside = {("fsync", str(path.relative_to(desk.root))) for path in staged.rglob("*")}
    monkeypatch.setattr("embeddings.release.store._fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    desk.store.publish(staged)
    renames = [place for place, step in enumerate(steps) if step[0] == "rename"]
    assert [steps[place][1] for place in renames] == ["histories/v1", "bundles/v1", "CURRENT"]
    assert inside == set(steps[: renames[0]])
    # Every rename is itself forced to disk before the next, and the content of CURRENT before its own.
    assert steps[renames[0] + 1 : renames[1]] == [("fsync", "histories")]
    assert steps[renames[1] + 1] == ("fsync", "bundles")
    assert steps[renames[2] - 1][1].startswith("staging/CURRENT.")
    assert steps[renames[2] + 1 :] == [("fsync", ".")]


# What names the current version


def folder(path: Path) -> None:
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


SPOILT: dict[str, Callable[[Path], object]] = {
    "missing": lambda _: None,
    "empty": lambda path: path.write_bytes(b""),
    "blank": lambda path: path.write_bytes(b" \n\n"),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "no text": lambda path: path.write_bytes(b"v1\xff"),
    "with NUL": lambda path: path.write_bytes(b"v1\0"),
    "two versions": lambda path: path.write_text("v1\nv2\n"),
    "300 letters": lambda path: path.write_text("v" * 300),
    "a megabyte": lambda path: path.write_text("v" * 2**20),
    "v1 and far behind it more": lambda path: path.write_text("v1" + " " * 5_000 + "v2"),
    "not here": lambda path: path.write_text("v3\n"),
    "the folder of all": lambda path: path.write_text("."),
    "a folder above": lambda path: path.write_text(".."),
    "a path": lambda path: path.write_text("../bundles/v1"),
    "a folder": folder,
    "a pipe": os.mkfifo,
    "a link to nothing": link_to_nothing,
    "a link to itself": link_to_itself,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_names_no_version_is_named_and_mended_by_a_rollback(spoil: Callable[[Path], object], desk: Desk):
    desk.publish("v1", "v2")
    current = desk.root / "CURRENT"
    current.unlink()
    spoil(current)
    for read in (desk.store.current, desk.store.rollback, lambda: desk.store.prune(1)):
        with pytest.raises((CorruptBundle, EmptyStore)) as refused:
            read()
        message = str(refused.value)
        assert message.startswith(str(current))
        assert "\n" not in message
        assert (
            f"the store holds v1, v2; make one of them current with: opportune-store rollback --store {desk.root}"
            in (message)
        )
    assert desk.store.versions() == ["v1", "v2"]
    if current.is_dir():
        with pytest.raises(CorruptBundle, match="remove it"):
            desk.store.rollback("v1")
        current.rmdir()
    assert desk.store.rollback("v1") == desk.store.current() == "v1"
    assert not list(desk.root.glob("CURRENT.*"))


@pytest.mark.parametrize("text", ["v1", "v1\n", " v1 \t\r\n", "\nv1" + " " * 500])
def test_blanks_around_the_current_version_do_not_count(text: str, desk: Desk):
    desk.publish("v1", "v2")
    (desk.root / "CURRENT").write_text(text)
    assert desk.store.current() == "v1"


def test_a_store_that_is_a_file_is_refused_by_name(tmp_path: Path):
    (tmp_path / "store").write_text("")
    with pytest.raises(InvalidInput, match=r"store/bundles: Not a directory"):
        BundleStore(tmp_path / "store").current()
    with pytest.raises(InvalidInput, match="File name too long"):
        BundleStore(tmp_path / ("s" * 300)).current()


# Crashes


class Crashing:
    """Stops the machine at the n-th of the steps that touch the disk, before or just after it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        self._when = when
        self._left: int | None = None

        def stop(original: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                if self._left is None:
                    return original(*arguments, **options)
                self._left -= 1
                if self._left < 0 and self._when == "before":
                    raise Crash
                result = original(*arguments, **options)
                if self._left < 0:
                    raise Crash
                return result

            return step

        def pretend(descriptor: int) -> None:
            os.fstat(descriptor)  # forcing to disk is slow, and the page cache survives this crash anyway

        monkeypatch.setattr(os, "fsync", stop(pretend))
        for name in ("rename", "write_text", "mkdir", "rmdir", "unlink"):
            monkeypatch.setattr(Path, name, stop(getattr(Path, name)))
        monkeypatch.setattr(shutil, "rmtree", stop(half_rmtree(shutil.rmtree, self)))

    def at(self, step: int, act: Callable[[], object]) -> bool:
        """Whether the machine stopped during an act."""
        self._left = step
        try:
            act()
        except Crash:
            return True
        finally:
            self._left = None
        return False

    @property
    def half(self) -> bool:
        return self._left is not None and self._left < 0


def half_rmtree(rmtree: Callable[..., None], crashing: Crashing) -> Callable[[Path], None]:
    """Deleting stops half-way, where it is what the machine stops at: manifests are gone first."""

    def step(folder: Path, *, ignore_errors: bool = False) -> None:
        if crashing.half:
            for manifest in folder.rglob(MANIFEST):
                os.unlink(manifest)  # noqa: PTH108 - Path.unlink is a step itself
        else:
            rmtree(folder, ignore_errors=ignore_errors)

    return step


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_while_publishing_leaves_the_old_release_or_the_new_one(
    when: str, tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
):
    crashing = Crashing(monkeypatch, when)
    seen: set[str] = set()
    desk = Desk(tmp_path / "store", published)
    desk.publish("v1")
    staged = desk.stage("v2")
    step, crashed = 0, True
    while crashed:
        crash_desk = Desk(tmp_path / f"{when}-{step}", published)
        shutil.copytree(desk.root, crash_desk.root)
        copy = crash_desk.root / staged.relative_to(desk.root)
        crashed = crashing.at(step, lambda store=crash_desk.store, copy=copy: store.publish(copy))
        current = crash_desk.store.current()
        seen.add(current)
        assert current in {"v1", "v2"}
        for version in {current, *crash_desk.store.versions()}:
            crash_desk.check(version)
        if step % 8 == 0 or not crashed:  # and the writer just starts again
            crash_desk.publish("v2", "v3")
            assert crash_desk.store.prune(1) == ["v1", "v2"]
            assert crash_desk.names("histories") == crash_desk.names("bundles") == ["v3"]
        step += 1
    assert step > 30  # every file and folder is a step
    assert seen == {"v1", "v2"}


def test_a_crash_while_publishing_the_first_release_leaves_no_half_of_it(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
):
    crashing = Crashing(monkeypatch, "before")
    outcomes: list[str] = []
    step, crashed = 0, True
    while crashed:
        desk = Desk(tmp_path / str(step), published)
        staged = desk.stage("v1")
        crashed = crashing.at(step, lambda store=desk.store, staged=staged: store.publish(staged))
        try:
            outcomes.append(desk.store.current())
            desk.check("v1")
        except EmptyStore:
            outcomes.append("empty")
        step += 1
    assert outcomes == sorted(outcomes, key=["empty", "v1"].index)
    assert set(outcomes) == {"empty", "v1"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_while_pruning_harms_no_release_that_stays_and_the_next_prune_finishes(
    when: str, tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
):
    crashing = Crashing(monkeypatch, when)
    desk = Desk(tmp_path / "store", published)
    desk.publish("v1", "v2", "v3")
    step, crashed = 0, True
    while crashed:
        crash_desk = Desk(tmp_path / f"{when}-{step}", published)
        shutil.copytree(desk.root, crash_desk.root)
        crashed = crashing.at(step, lambda store=crash_desk.store: store.prune(1))
        assert crash_desk.store.current() == "v3"
        crash_desk.check("v3")
        for version in crash_desk.store.versions():
            verify(crash_desk.store.bundle(version), read_manifest(crash_desk.store.bundle(version)))
        with crash_desk.store.lock():
            crash_desk.store.prune(1)
        assert crash_desk.names("histories") == crash_desk.names("bundles") == ["v3"]
        assert crash_desk.names("staging") == []
        step += 1
    assert step > 5


# Rolling back


def test_rolling_back_goes_to_the_release_before_and_further(desk: Desk):
    desk.publish("v1", "v2", "v3")
    assert [desk.store.rollback(), desk.store.rollback()] == ["v2", "v1"]
    assert desk.store.current() == "v1"
    with pytest.raises(EmptyStore, match="no release before v1"):
        desk.store.rollback()
    assert desk.store.current() == "v1"
    assert desk.store.versions() == ["v1", "v2", "v3"]


def test_rolling_back_to_a_named_release_goes_forward_too(desk: Desk):
    desk.publish("v1", "v2", "v3")
    assert desk.store.rollback("v1") == desk.store.current() == "v1"
    assert desk.store.rollback("v3") == desk.store.current() == "v3"


@pytest.mark.parametrize("to", ["v7", "", "..", "../bundles/v1"])
def test_rolling_back_to_nothing_published_is_refused(to: str, desk: Desk):
    desk.publish("v1", "v2")
    with pytest.raises(EmptyStore, match="it holds v1, v2"):
        desk.store.rollback(to)
    assert desk.store.current() == "v2"


@pytest.mark.parametrize("to", [None, "v1"])
def test_an_empty_store_cannot_be_rolled_back(to: str | None, desk: Desk):
    with pytest.raises(EmptyStore):
        desk.store.rollback(to)


@pytest.mark.parametrize("to", [None, "v1"])
def test_rolling_back_to_a_damaged_release_is_refused(to: str | None, desk: Desk):
    desk.publish("v1", "v2")
    path = damage(desk.store.histories("v1"), "events.npy")
    with pytest.raises(CorruptBundle) as refused:
        desk.store.rollback(to)
    assert refused.value.path == path
    assert desk.store.current() == "v2"


def test_a_damaged_current_release_can_be_left_for_a_named_one(desk: Desk):
    desk.publish("v1", "v2")
    (desk.store.bundle("v2") / MANIFEST).unlink()
    assert desk.store.rollback("v1") == desk.store.current() == "v1"


# Pruning


@pytest.mark.parametrize(
    ("keep", "current", "left"),
    [
        (1, "v4", ["v4"]),
        (2, "v4", ["v3", "v4"]),
        (2, "v1", ["v1", "v3", "v4"]),
        (9, "v4", ["v1", "v2", "v3", "v4"]),
    ],
)
def test_pruning_keeps_the_newest_and_the_current(keep: int, current: str, left: list[str], desk: Desk):
    desk.publish("v1", "v2", "v3", "v4")
    desk.store.rollback(current)
    assert desk.store.prune(keep) == [one for one in ("v1", "v2", "v3", "v4") if one not in left]
    assert desk.store.versions() == desk.names("histories") == left
    assert desk.store.current() == current
    for version in left:
        desk.check(version)


@pytest.mark.parametrize("keep", [0, -1])
def test_pruning_everything_is_refused(keep: int, desk: Desk):
    desk.publish("v1", "v2")
    with pytest.raises(InvalidInput, match="at least 1"):
        desk.store.prune(keep)
    assert desk.store.versions() == ["v1", "v2"]


def test_histories_that_a_crash_parted_from_their_bundle_are_pruned(desk: Desk):
    desk.publish("v1")
    desk.store.histories("v1").rename(desk.store.histories("v0"))
    shutil.copytree(desk.store.histories("v0"), desk.store.histories("v1"))
    assert desk.store.prune(9) == []
    assert desk.names("histories") == ["v1"]


def test_what_is_not_published_is_deleted_with_the_lock_given_back_and_with_the_next_one_taken(desk: Desk):
    left = desk.stage("v1")
    with desk.store.lock():
        assert not left.exists()
        failed = desk.stage("v2")
        assert failed.exists()
    assert not failed.exists()


# One run at a time


WEEK = 7 * 86_400


def checkpoint(desk: Desk, name: str, age: float) -> Path:
    """A checkpoint that was written so many seconds ago, in a folder as old."""
    path = desk.root / "runs" / name / "whole" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    for touched in (path, path.parent, path.parent.parent):
        os.utime(touched, (time.time() - age, time.time() - age))
    return path


def test_a_second_run_is_refused_until_the_first_ends(desk: Desk):
    with (
        desk.store.training(),
        pytest.raises(InvalidInput, match="another run trains into") as refused,
        desk.store.training(),
    ):
        pass
    assert str(desk.root) in str(refused.value)
    with desk.store.training() as runs:
        assert runs == desk.root / "runs"


def test_checkpoints_stay_for_a_run_that_failed_and_go_once_one_succeeds(desk: Desk):
    mine = checkpoint(desk, "mine", age=0)
    others = checkpoint(desk, "others", age=WEEK / 2)
    with pytest.raises(RuntimeError), desk.store.training():
        raise RuntimeError
    assert mine.exists()
    assert others.exists()
    with desk.store.training():
        pass
    assert not mine.exists()
    assert not others.exists()


def test_a_run_begins_by_deleting_what_runs_before_it_staged_and_abandoned(desk: Desk):
    staged = desk.stage("v1")
    old, young = checkpoint(desk, "old", age=WEEK + 60), checkpoint(desk, "young", age=WEEK - 60)
    with desk.store.training():
        assert not staged.exists()
        assert not old.parent.parent.exists()
        assert young.exists()


def test_pruning_deletes_abandoned_checkpoints_but_of_no_store_where_a_run_is_under_way(desk: Desk):
    desk.publish("v1")
    desk.store.prune(1)  # where nothing was ever trained
    with desk.store.training():
        kept = checkpoint(desk, "old", age=WEEK + 60)
        desk.store.prune(1)
        assert kept.exists()
    old, young = checkpoint(desk, "old", age=WEEK + 60), checkpoint(desk, "young", age=WEEK - 60)
    desk.store.prune(1)
    assert not old.exists()
    assert young.exists()


def test_tables_are_closed_to_others_and_go_with_the_block(desk: Desk):
    with desk.store.tables() as one, desk.store.tables() as other, desk.store.lock():
        assert one != other
        assert {path.stat().st_mode & 0o777 for path in (one, other)} == {0o700}
        (one / "events.parquet").write_bytes(b"")
    assert not list((desk.root / "tables").iterdir())


def test_tables_of_a_process_that_was_killed_go_with_the_next_lock_and_no_others(desk: Desk):
    with desk.store.tables() as held:
        (held / "events.parquet").write_bytes(b"")
        abandoned = held.with_name("abandoned")
        shutil.copytree(held, abandoned)
        with desk.store.training():
            assert not abandoned.exists()
            assert (held / "events.parquet").exists()


def test_there_is_one_writer_at_a_time(desk: Desk):
    with desk.store.lock(), (desk.root / "LOCK").open("w") as another, pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (desk.root / "LOCK").open("w") as another:
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_a_reader_has_mapped_outlives_its_pruning(desk: Desk):
    desk.publish("v1", "v2")
    histories = open_histories(desk.store.histories("v1"))[1]
    before = histories.events.tobytes()
    desk.store.prune(1)
    assert histories.events.tobytes() == before
