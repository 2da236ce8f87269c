"""Published versions on disk: every step either happened wholly or not at all.

STORE/bundles/VERSION/     immutable model releases
STORE/histories/VERSION/   the customers' pasts that belong to them: personal data, kept apart
STORE/CURRENT              the name of the version to serve
STORE/staging/             what is being written; of no meaning to readers
"""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from embeddings.bundle import BUNDLE, HISTORIES, read_histories_manifest, read_manifest, verify
from embeddings.errors import EmptyStore


class BundleStore:
    """A folder of published versions. Any number of readers, one writer at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._current = root / "CURRENT"

    def bundle(self, version: str) -> Path:
        """Where a version's bundle lies."""
        return self._root / "bundles" / version

    def histories(self, version: str) -> Path:
        """Where the histories as of a version's data cut-off lie."""
        return self._root / "histories" / version

    def stage(self) -> Path:
        """A new folder in which to write ``bundle/`` and ``histories/`` before publishing them."""
        staged = self._root / "staging" / uuid4().hex
        (staged / BUNDLE).mkdir(parents=True)
        (staged / HISTORIES).mkdir()
        return staged

    def publish(self, staged: Path) -> str:
        """Make a staged release the current one; returns its version.

        The files are verified and forced to disk before the first rename, and ``CURRENT`` changes last, so that
        a reader, or a crash at any point, sees the old release or the new one.
        """
        manifest = read_manifest(staged / BUNDLE)
        verify(staged / BUNDLE, manifest)
        verify(staged / HISTORIES, read_histories_manifest(staged / HISTORIES))
        version = manifest.version
        for path in sorted(staged.rglob("*"), reverse=True):
            _fsync(path)
        for source, target in (
            (staged / HISTORIES, self.histories(version)),
            (staged / BUNDLE, self.bundle(version)),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # the very same release was published before
                continue
            source.rename(target)
            _fsync(target.parent)
        shutil.rmtree(staged)
        self._point_at(version)
        return version

    def current(self) -> str:
        """The version to serve; EmptyStore if nothing has been published."""
        try:
            return self._current.read_text().strip()
        except FileNotFoundError:
            raise EmptyStore(
                f"{self._root} holds no published version; publish one with: opportune-train --store {self._root}"
            ) from None

    def versions(self) -> list[str]:
        """The published versions, the oldest release first."""
        manifests = [read_manifest(path) for path in (self._root / "bundles").glob("*") if path.is_dir()]
        return [manifest.version for manifest in sorted(manifests, key=lambda one: (one.created_at, one.version))]

    def rollback(self, to: str | None = None) -> str:
        """Point back at an earlier version: the one named, or the release before the current one.

        Raises:
            EmptyStore: there is no such version.
        """
        versions, current = self.versions(), self.current()
        if to is None:
            place = versions.index(current) if current in versions else 0
            if place == 0:
                raise EmptyStore(f"{self._root} holds no release before {current}")
            to = versions[place - 1]
        if to not in versions:
            raise EmptyStore(f"{self._root} holds no version {to}; it holds {', '.join(versions)}")
        self._point_at(to)
        return to

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest ``keep`` (at least 1) versions and the current one; returns the deleted."""
        current = self.current()
        doomed = [version for version in self.versions()[:-keep] if version != current]
        for version in doomed:
            shutil.rmtree(self.bundle(version))
            shutil.rmtree(self.histories(version), ignore_errors=True)
        return doomed

    def _point_at(self, version: str) -> None:
        fresh = self._root / f"CURRENT.{uuid4().hex}"
        fresh.write_text(version + "\n")
        _fsync(fresh)
        fresh.rename(self._current)
        _fsync(self._root)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
