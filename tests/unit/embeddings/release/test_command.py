import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

import embeddings.release.store
from embeddings.release.__main__ import main
from embeddings.release.bundle import Made, Manifest, read_histories_manifest, write_manifest
from embeddings.release.store import BundleStore
from tests.world import UNTIL


@pytest.fixture
def store(published: tuple[BundleStore, Manifest], tmp_path: Path) -> BundleStore:
    """Three releases made a day apart, ``third`` being current."""
    origin, manifest = published
    store = BundleStore(tmp_path / "store")
    for day, version in enumerate(("first", "second", "third")):
        staged = store.stage()
        shutil.copytree(origin.bundle(manifest.version), staged / "bundle", dirs_exist_ok=True)
        shutil.copytree(origin.histories(manifest.version), staged / "histories", dirs_exist_ok=True)
        at = UNTIL + timedelta(days=day, hours=7)
        write_manifest(staged / "bundle", msgspec.structs.replace(manifest, version=version, created_at=at))
        past = read_histories_manifest(staged / "histories")
        write_manifest(staged / "histories", msgspec.structs.replace(past, version=version, created_at=at))
        store.publish(staged)
    return store


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command on the store: exit status, stdout, stderr."""

    def run(*arguments: str, folder: str = "store") -> tuple[int, str, str]:
        command, *rest = arguments
        monkeypatch.setattr(sys, "argv", ["opportune-store", command, "--store", str(tmp_path / folder), *rest])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_list_shows_each_version_its_times_and_which_is_current(store: BundleStore, call: Call):
    store.rollback("second")
    status, out, err = call("list")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "first  created 2025-06-01T07:00:00Z  data until 2025-06-01T00:00:00Z",
        "second  created 2025-06-02T07:00:00Z  data until 2025-06-01T00:00:00Z  current",
        "third  created 2025-06-03T07:00:00Z  data until 2025-06-01T00:00:00Z",
    ]


def test_rollback_goes_one_back_or_to_the_one_named(store: BundleStore, call: Call):
    assert call("rollback") == (0, "current is now second\n", "")
    assert store.current() == "second"
    assert call("rollback", "--to", "third") == (0, "current is now third\n", "")
    assert store.current() == "third"


def test_prune_deletes_all_but_the_newest(store: BundleStore, call: Call):
    assert call("prune") == (0, "nothing to prune\n", "")
    assert call("prune", "--keep", "1") == (0, "pruned first\npruned second\n", "")
    assert store.versions() == ["third"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rollback", "--to", "fourth"), "holds no version fourth; it holds first, second, third"),
        (("prune", "--keep", "0"), "keep: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_said_and_exits_2(
    store: BundleStore, call: Call, arguments: tuple[str, ...], message: str
):
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("opportune-store: ")
    assert message in err
    assert (store.current(), store.versions()) == ("third", ["first", "second", "third"])


@pytest.mark.parametrize("command", ["list", "rollback", "prune"])
def test_an_empty_store_exits_2_and_says_how_to_fill_it(command: str, call: Call):
    status, out, err = call(command, folder="elsewhere")
    assert (status, out) == (2, "")
    assert "holds no published version" in err


@pytest.mark.parametrize("arguments", [("list",), ("rollback",), ("prune", "--keep", "1")])
def test_a_current_that_names_no_version_exits_2_in_one_line_that_says_what_to_do(
    store: BundleStore, tmp_path: Path, call: Call, arguments: tuple[str, ...]
):
    current = tmp_path / "store" / "CURRENT"
    current.write_bytes(b"\xff\n" * 300)
    status, out, err = call(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"opportune-store: {current}: ")
    assert store.versions() == ["first", "second", "third"]
    assert call("rollback", "--to", "second") == (0, "current is now second\n", "")


@pytest.mark.parametrize("command", ["rollback", "prune"])
def test_a_store_that_cannot_be_locked_exits_2(store: BundleStore, tmp_path: Path, call: Call, command: str):
    lock = tmp_path / "store" / "LOCK"
    lock.mkdir()
    status, out, err = call(command)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"{lock}: Is a directory" in err
    assert store.current() == "third"


def test_list_waits_for_no_writer(store: BundleStore, call: Call):
    with store.lock():
        status, out, _ = call("list")
    assert (status, out.count("\n")) == (0, 3)


def test_a_release_that_is_pruned_while_it_is_listed_is_left_out(
    store: BundleStore, call: Call, monkeypatch: pytest.MonkeyPatch
):
    read = embeddings.release.store.read_made

    def pruned_before(folder: Path) -> Made:
        if folder == store.bundle("first"):
            shutil.rmtree(folder)
        return read(folder)

    monkeypatch.setattr(embeddings.release.store, "read_made", pruned_before)
    status, out, _ = call("list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["second", "third"]


def test_a_full_disk_exits_2_and_says_where(store: BundleStore, call: Call, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the system names no file to whoever writes

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = call("rollback")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "no space left on" in err
    assert store.current() == "third"


def test_an_interrupt_exits_130_in_silence(store: BundleStore, call: Call, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupted)
    assert call("prune") == (130, "", "")
    assert store.current() == "third"


def test_a_damaged_manifest_exits_2_and_is_named(store: BundleStore, call: Call):
    manifest = store.bundle("first") / "manifest.json"
    manifest.write_text("{}")
    status, _, err = call("list")
    assert status == 2
    assert str(manifest) in err


@pytest.mark.parametrize("arguments", [("list", "--to", "first"), ("prune", "--keep", "many"), ("publish",)])
def test_wrong_usage_exits_2(call: Call, arguments: tuple[str, ...]):
    status, _, err = call(*arguments)
    assert status == 2
    assert "usage: opportune-store" in err
