"""Published versions on disk: every step either happened wholly or not at all.

STORE/bundles/VERSION/     immutable model releases
STORE/histories/VERSION/   the customers' pasts that belong to them: personal data, kept apart
STORE/LOCK                 held by the one writer
STORE/CURRENT              the name of the version to serve
STORE/staging/             what is being written; of no meaning to readers
STORE/runs/                checkpoints of training runs, and the lock that the one training run holds
STORE/tables/              what runs under way have read from a database: personal data
"""

import fcntl
import math
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import TypeAlias
from uuid import uuid4

from embeddings.errors import CorruptBundle, EmptyStore, InvalidInput
from embeddings.locks import locked, try_for
from embeddings.release.bundle import (
    BUNDLE,
    HISTORIES,
    MANIFEST,
    Made,
    read_histories_manifest,
    read_made,
    read_manifest,
    verify,
)

_ABANDONED_SECONDS = 7 * 86_400
"""A checkpoint that nobody has written for so long is deleted: the run that left it has not been given again."""

_LONGEST_CURRENT = 1_024
"""Bytes that ``CURRENT`` may hold: a folder's name, which is shorter, and blanks around it."""

_SHOWN = 80
"""Letters of an unknown version that a message quotes."""

_SHARED = 0o666
"""The mode of lock files, less the umask: several users may write one store."""

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and time of change of files: equal as long as none of them has been touched."""


class BundleStore:
    """A folder of published versions: any number of readers, and one writer at a time, who holds the lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._current = root / "CURRENT"
        self._staging, self._runs, self._tables = root / "staging", root / "runs", root / "tables"

    def bundle(self, version: str) -> Path:
        """Return the folder of a version's bundle."""
        return self._root / "bundles" / version

    def histories(self, version: str) -> Path:
        """Return the folder of the histories as of a version's data cut-off."""
        return self._root / "histories" / version

    @contextmanager
    def lock(self) -> Generator[None]:
        """Wait for the store's writer lock and hold it; delete staged folders before and after, and abandoned tables.

        An earlier writer that was killed, or this one, left them unpublished. They hold personal data, and nobody will
        publish them.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with locked(self._root / "LOCK", _SHARED) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._staging.exists():
                shutil.rmtree(self._staging)
            self._delete_abandoned_tables()
            try:
                yield
            finally:
                shutil.rmtree(self._staging, ignore_errors=True)

    @contextmanager
    def tables(self) -> Generator[Path]:
        """Yield a new folder that only its owner can read, for the tables of a database; it goes with the block.

        Where the process is killed, whoever takes the writer lock next deletes it: nobody holds its own lock any more.

        Raises:
            InvalidInput: the store is no folder.
        """
        self._check_folder()
        with ExitStack() as stack:
            with self.lock():  # nobody deletes it before its own lock is held
                self._tables.mkdir(exist_ok=True)
                folder = Path(tempfile.mkdtemp(dir=self._tables))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                fcntl.flock(stack.enter_context(locked(folder / "LOCK")), fcntl.LOCK_EX)
            yield folder

    @contextmanager
    def training(self) -> Generator[Path]:
        """Hold the lock of the one run that trains into this store, and yield the folder for its checkpoints.

        If the run fails, the checkpoints stay, so that the same run can go on from them. If it succeeds, it has
        published, and every checkpoint is deleted.

        Raises:
            InvalidInput: another run trains into this store now, or the store is no folder.
        """
        self._check_folder()
        self._runs.mkdir(parents=True, exist_ok=True)
        with self._only_run() as only:
            if not only:
                raise InvalidInput(
                    "--store", f"another run trains into {self._root} now; wait until it ends, or use another store"
                )
            with self.lock():  # deletes what a run that was killed had staged
                pass
            self._delete_checkpoints(time.time() - _ABANDONED_SECONDS)
            yield self._runs
            self._delete_checkpoints(math.inf)

    def is_training(self) -> bool:
        """Return whether a run trains into this store now."""
        if not self._runs.is_dir():
            return False
        with self._only_run() as only:
            return not only

    def stage(self) -> Path:
        """Make and return a folder in which to write ``bundle/`` and ``histories/`` before publishing them."""
        staged = self._staging / uuid4().hex
        (staged / BUNDLE).mkdir(parents=True)
        (staged / HISTORIES).mkdir(mode=0o700)
        return staged

    def publish(self, staged: Path) -> str:
        """Make a staged release the current one, and return its version.

        The files are verified and forced to disk before the first rename, and ``CURRENT`` changes last, so that
        a reader, or a crash at any point, sees the old release or the new one.

        Raises:
            CorruptBundle: a staged file does not match its manifest, or neither does a file of this very release that
                was published before.
        """
        version = _verified(staged / BUNDLE, staged / HISTORIES)
        close_to_others(staged / HISTORIES)
        for path in sorted(staged.rglob("*"), reverse=True):
            _fsync(path)
        kept = False
        for source, target in (
            (staged / HISTORIES, self.histories(version)),
            (staged / BUNDLE, self.bundle(version)),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # the very same release was published before
                kept = True
                continue
            source.rename(target)
            _fsync(target.parent)
        close_to_others(self._root / "histories")
        if kept:  # what was staged has been verified; what lay here may have been damaged since
            _verified(self.bundle(version), self.histories(version))
        shutil.rmtree(staged)
        self._point_at(version)
        return version

    def current(self) -> str:
        """Return the version to serve: the one that ``CURRENT`` names.

        Raises:
            EmptyStore: nothing has been published, or there is no ``CURRENT``.
            CorruptBundle: ``CURRENT`` cannot be read, or does not name a version that the store holds.
        """
        held = self.held()
        mend = (
            f"the store holds {', '.join(held)}; make one of them current with: "
            f"opportune-store rollback --store {self._root} --to VERSION"
        )
        try:
            if not self._current.is_file():  # a folder, or a pipe on which a read would wait
                if self._current.exists():
                    raise CorruptBundle(self._current, f"is no file; remove it, then: {mend}")
                raise EmptyStore(f"{self._current} is missing; {mend}")
            with self._current.open("rb") as file:
                text = file.read(_LONGEST_CURRENT + 1)
        except OSError as error:
            raise CorruptBundle(self._current, f"cannot be read: {error.strerror}") from None
        version = text.decode(errors="replace").strip()
        if version not in held or len(text) > _LONGEST_CURRENT:
            shown = version if len(version) <= _SHOWN else version[:_SHOWN] + "…"
            raise CorruptBundle(self._current, f"names {shown!r}, which is no version of this store; {mend}")
        return version

    def held(self) -> list[str]:
        """Return the names of the versions that lie in the store, whole or damaged; at least one.

        Raises:
            EmptyStore: there is none, or no store.
            InvalidInput: the store is no folder that can be read.
        """
        try:
            held = sorted(path.name for path in (self._root / "bundles").iterdir() if path.is_dir())
        except FileNotFoundError:
            held = []
        except OSError as error:
            raise InvalidInput("--store", f"cannot read {error.filename}: {error.strerror}") from None
        if not held:
            raise EmptyStore(
                f"{self._root} holds no published version; publish one with: opportune-train --store {self._root}"
            )
        return held

    def stamp(self, version: str) -> Stamp:
        """Return a stamp that changes whenever a version's files, or ``CURRENT``, change."""
        folders = (self.bundle(version), self.histories(version))
        paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
        return tuple(_stamp(path) for path in [self._current, *paths])

    def releases(self) -> list[Made]:
        """Return the published releases, of this format and of earlier ones, the oldest first.

        Raises:
            CorruptBundle: a manifest is unreadable.
        """
        found: list[Made] = []
        for path in (self._root / "bundles").glob("*"):
            try:
                found.append(read_made(path))
            except CorruptBundle:
                if path.is_dir():  # else it is none, or was pruned meanwhile
                    raise
        return sorted(found, key=lambda one: (one.created_at, one.version))

    def versions(self) -> list[str]:
        """Return the versions of `releases`, in the same order."""
        return [one.version for one in self.releases()]

    def rollback(self, to: str | None = None) -> str:
        """Make an earlier version current, the one named or the release before the current one; return it.

        Naming one works even while another, such as the current one, or ``CURRENT`` itself is damaged.

        Raises:
            EmptyStore: there is no such version.
            CorruptBundle: the version is damaged, or ``CURRENT`` is a folder; nothing was changed.
        """
        if to is None:
            versions, current = self.versions(), self.current()
            place = versions.index(current)
            if place == 0:
                raise EmptyStore(f"{self._root} holds no release before {current}")
            to = versions[place - 1]
        held = self.held()
        if to not in held:
            raise EmptyStore(f"{self._root} holds no version {to}; it holds {', '.join(held)}")
        _verified(self.bundle(to), self.histories(to))
        self._point_at(to)
        return to

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest ``keep`` versions and the current one; return the deleted versions.

        Each is moved aside before it is deleted, so that a crash leaves no half of a release. Histories that a
        crash has parted from their bundle are deleted too, and checkpoints of abandoned runs while no run is under way.

        Raises:
            InvalidInput: ``keep`` is below 1.
        """
        if keep < 1:
            raise InvalidInput("keep", f"expected at least 1, got {keep}")
        current = self.current()
        doomed = [version for version in self.versions()[:-keep] if version != current]
        orphans = [path.name for path in (self._root / "histories").glob("*") if not self.bundle(path.name).exists()]
        aside = self.stage()
        for version in orphans + doomed:
            for path in (self.histories(version), self.bundle(version)):
                if path.exists():
                    path.rename(aside / f"{path.parent.name}-{version}")
        shutil.rmtree(aside)
        if self._runs.is_dir():
            with self._only_run() as only:
                if only:
                    self._delete_checkpoints(time.time() - _ABANDONED_SECONDS)
        return doomed

    @contextmanager
    def _only_run(self) -> Generator[bool]:
        """Try to take the lock of the one training run without waiting; yield whether it was free."""
        with locked(self._runs / "LOCK", _SHARED) as lock:
            yield try_for(lock, fcntl.LOCK_EX)

    def _check_folder(self) -> None:
        if self._root.exists() and not self._root.is_dir():
            raise InvalidInput("--store", f"expected a folder; {self._root} is a file")

    def _delete_abandoned_tables(self) -> None:
        """Delete the tables of processes that were killed; the caller holds the writer lock."""
        for folder in self._tables.glob("*/"):
            # It may be gone meanwhile, or another user's.
            with suppress(FileNotFoundError, PermissionError):
                with locked(folder / "LOCK") as lock:
                    abandoned = try_for(lock, fcntl.LOCK_EX)
                if abandoned:  # for good: nobody comes back to a lock
                    shutil.rmtree(folder)

    def _delete_checkpoints(self, before: float) -> None:
        """Delete checkpoints last written before a moment, in seconds since 1970; the caller holds the run's lock."""
        for folder in [path for path in self._runs.iterdir() if path.is_dir()]:
            if max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) < before:
                shutil.rmtree(folder, ignore_errors=True)

    def _point_at(self, version: str) -> None:
        if self._current.is_dir():
            raise CorruptBundle(self._current, "is a folder, which nothing here replaces; remove it")
        self._staging.mkdir(exist_ok=True)
        fresh = self._staging / f"CURRENT.{uuid4().hex}"
        fresh.write_text(version + "\n")
        _fsync(fresh)
        fresh.rename(self._current)
        _fsync(self._root)


def _verified(bundle: Path, histories: Path) -> str:
    """Return the version of a release after checking every file against its manifest.

    Raises:
        CorruptBundle: names the file that does not match.
    """
    manifest, past = read_manifest(bundle), read_histories_manifest(histories)
    if past.version != manifest.version:
        raise CorruptBundle(histories / MANIFEST, f"belongs to version {past.version}, not {manifest.version}")
    verify(bundle, manifest)
    verify(histories, past)
    return manifest.version


def close_to_others(folder: Path) -> None:
    """Allow only its owner to read a folder with personal data, whatever the umask; leave other users' files alone.

    Raises:
        OSError: the file system cannot be written.
    """
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # pruned meanwhile
            found, wanted = path.stat(), 0o700 if path.is_dir() else 0o600
            if found.st_uid == os.geteuid() and S_IMODE(found.st_mode) != wanted:
                path.chmod(wanted)


def _stamp(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:  # deleted since it was listed
        return str(path), 0, 0, 0
    # The time of the last change of anything, owner and mode too: they may be what had to be mended.
    return str(path), found.st_ino, found.st_size, found.st_ctime_ns


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
