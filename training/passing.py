"""Folders with personal data, which are to be gone when the process ends, even where it unwinds nothing."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_folders: set[Path] = set()


@contextmanager
def passing(folder: Path) -> Generator[None]:
    """Have `delete_passing` delete a folder as long as the block lasts."""
    _folders.add(folder)
    try:
        yield
    finally:
        _folders.discard(folder)


def delete_passing() -> None:
    """Delete those folders, from any thread: the process is about to end without unwinding."""
    for folder in list(_folders):
        gone = folder.with_name(f"{folder.name}-gone")
        with suppress(OSError):  # deleted meanwhile
            folder.rename(gone)  # first: the main thread, which goes on, makes no further files in it
        shutil.rmtree(gone, ignore_errors=True)
