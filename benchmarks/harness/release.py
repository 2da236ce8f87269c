"""The releases that the suites measure: Complete Journey as it was at a cut-off."""

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from embeddings.errors import CorruptBundle, EmptyStore
from embeddings.release.bundle import Manifest, read_manifest
from embeddings.release.store import BundleStore

UNTIL = datetime(2017, 12, 4, 4, 1, 20, tzinfo=UTC)
"""The cut-off, 28 days before the data end; what happened later is what the suites ask about."""

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def release(store: Path, until: datetime = UNTIL, write: Callable[[Path, datetime], None] | None = None) -> str:
    """Return the version in a store of the suites' own; train one unless the current one has this cut-off.

    Args:
        store: the store.
        until: the cut-off.
        write: writes the tables to be trained on into a folder; None for Complete Journey as it is.
    """
    version = current(store, lambda manifest: manifest.data_cut_off == until)
    if version is not None:
        return version
    data = "complete-journey"
    if write is not None:
        data = str(store / "data")
        write(store / "data", until)
    command = ["-m", "training", "--data", data, "--store", str(store), "--until", until.isoformat()]
    subprocess.run([sys.executable, *command], check=True)  # noqa: S603 - our own command
    return BundleStore(store).current()


def current(store: Path, suits: Callable[[Manifest], bool]) -> str | None:
    """Return a store's current version if it suits; None too if there is none, or one of an older format."""
    bundles = BundleStore(store)
    try:
        version = bundles.current()
        return version if suits(read_manifest(bundles.bundle(version))) else None
    except (EmptyStore, CorruptBundle):
        return None


@contextmanager
def own_state(store: Path, version: str) -> Generator[Path]:
    """Yield a store of the same release with its own events, so that replays stay out of other measurements."""
    with TemporaryDirectory(prefix="own-state-", dir=store, ignore_cleanup_errors=True) as name:
        own = Path(name)
        for folder in ("bundles", "histories"):
            (own / folder).symlink_to((store / folder).resolve())
        copyfile(store / "CURRENT", own / "CURRENT")
        assert BundleStore(own).current() == version  # noqa: S101 - nobody else writes to the suites' store
        yield own
