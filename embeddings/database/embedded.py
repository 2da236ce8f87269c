"""The embedded PostgreSQL's place: its user, its data folder and the users who may connect.

PostgreSQL refuses to run as root. Started by root, it runs as the owner of its data folder, who need not be able to
enter the folder's parents: its working folder is the data folder before it gives up root's rights, and it knows that
folder by no other name. It listens on a socket in there, which the service reaches through an open descriptor, so that
no path is too long for a socket either.
"""

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from embeddings.database.programs import WITHOUT, programs_for, running_as
from embeddings.errors import EventStoreUnavailable
from embeddings.locks import locked, wait_for

PORT = 5432
"""Part of the socket's name; PostgreSQL listens on no network."""
SUPERUSER = "postgres"
OWN_FOLDER = "/proc/self/cwd"
"""The data folder by the name that PostgreSQL has for it: its working folder, whatever lies above it."""
_OWNER = "opportune"
"""Whom a data folder belongs to that root makes."""
_MAKING_SECONDS, _WRITING_SECONDS = 60.0, 15.0
_HBA = f"""\
# Written by opportune-serve. Nobody connects but the owner of this folder and root, by the map in pg_ident.conf.
local all {SUPERUSER} peer map=opportune
"""


class Home(NamedTuple):
    """An embedded PostgreSQL's place on this machine.

    Attributes:
        state: the folder of this process's user that holds the data folder, locks and the log.
        descriptor: of the data folder; open as long as this process lives.
        uid, gid: the data folder's owner, as whom PostgreSQL runs.
        programs: the folder with ``postgres`` and ``initdb``.
    """

    state: Path
    descriptor: int
    uid: int
    gid: int
    programs: Path

    @property
    def folder(self) -> Path:
        """Return the path of the data folder, for people."""
        return self.state / "postgres"

    @property
    def inside(self) -> str:
        """Return the path of the data folder by its descriptor: a short name, for this process and its forks."""
        return f"/proc/self/fd/{self.descriptor}"

    @property
    def url(self) -> str:
        """Return the URL to connect to, from this process and its forks."""
        return f"postgresql://{SUPERUSER}@/{SUPERUSER}?host={self.inside}&port={PORT}"

    @property
    def log(self) -> Path:
        """Return the path of PostgreSQL's log."""
        return self.state / "postgres.log"


def prepare(state: Path) -> Home:
    """Make the data folder if there is none, check its owner, and return PostgreSQL's place.

    Raises:
        EventStoreUnavailable: it cannot be made here, or this process may not use it.
        OSError: the state folder cannot be written.
    """
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EventStoreUnavailable(
            f"this process runs as user id {os.geteuid()}, which has no name, and the embedded PostgreSQL knows its "
            f"users by name; add the user to /etc/passwd, {WITHOUT}"
        ) from None
    folder = state / "postgres"
    if _missing(folder):
        with locked(state / "keeper.lock") as lock:
            wait_for(lock, fcntl.LOCK_EX, _MAKING_SECONDS, state / "keeper.lock")
            if _missing(folder):
                _make(folder)
    _check_owner(folder)
    owner = folder.stat()
    programs = programs_for(owner.st_uid, owner.st_gid)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    return Home(state, descriptor, owner.st_uid, owner.st_gid, programs)


def write_access(home: Home) -> bool:
    """Let the owner of the data folder and root connect and nobody else; return whether that is new.

    Raises:
        EventStoreUnavailable: another process keeps the lock of those who write this.
    """
    names: list[str] = []
    for uid in sorted({0, home.uid}):
        with suppress(KeyError):  # who has no name cannot be let in by it
            names.append(pwd.getpwuid(uid).pw_name)
    ident = "".join(f'opportune "{name}" {SUPERUSER}\n' for name in names)
    path = home.state / "access.lock"  # several servers may start at the same moment
    with locked(path) as lock:
        wait_for(lock, fcntl.LOCK_EX, _WRITING_SECONDS, path)
        return _rewrite(home, "pg_hba.conf", _HBA) | _rewrite(home, "pg_ident.conf", ident)


def as_owner(home: Home) -> dict[str, Any]:
    """Return options to run a PostgreSQL program: as the owner, in the data folder, away from our terminal."""
    return {**running_as(home.uid, home.gid), "cwd": home.inside}


def _missing(folder: Path) -> bool:
    """Return whether there is no data folder, or an empty one, as left by an earlier version that was killed."""
    return not folder.exists() or (os.access(folder, os.R_OK) and not any(folder.iterdir()))


def _check_owner(folder: Path) -> None:
    """Raise EventStoreUnavailable if a data folder belongs to a user as whom this process can start nothing."""
    owner = folder.stat()
    if owner.st_uid != os.geteuid() and os.geteuid() != 0:
        raise EventStoreUnavailable(
            f"{folder} belongs to user id {owner.st_uid}, and this process runs as user id {os.geteuid()}; start it as "
            f"that user, give the folder to this one with: chown -R {os.geteuid()} {folder}, {WITHOUT}"
        )
    if owner.st_uid == 0:
        raise EventStoreUnavailable(
            f"{folder} belongs to root, as whom PostgreSQL may not run, as after a copy made by root; give it to the "
            f"user it was made by, or to any other than root, with: chown -R USER: {folder}, {WITHOUT}"
        )


def _make(folder: Path) -> None:
    """Make a data folder; it is there wholly or not at all."""
    _forget_unfinished(folder.parent)
    uid, gid = (os.geteuid(), os.getegid()) if os.geteuid() else _owner()
    programs = programs_for(uid, gid)
    fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=folder.parent))
    try:
        os.chown(fresh, uid, gid)
        told = subprocess.run(  # noqa: S603 - our own command
            [
                programs / "initdb",
                *("-D", OWN_FOLDER, "-U", SUPERUSER, "--auth=peer", "--encoding=UTF8", "--locale=C"),
            ],
            **running_as(uid, gid),
            cwd=fresh,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if told.returncode:
            said = " ".join(told.stderr.split()) or f"initdb ended with {told.returncode}"
            raise EventStoreUnavailable(f"the embedded PostgreSQL could not be set up in {folder}: {said}")
        fresh.rename(folder)
    finally:
        # Once more: an initdb whose parent was killed may have gone on writing into what was removed before.
        _forget_unfinished(folder.parent)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _forget_unfinished(state: Path) -> None:
    """Remove unfinished data folders, which this process or one that was killed has left."""
    for left in state.glob("initdb-*"):
        shutil.rmtree(left, ignore_errors=True)


def _owner() -> tuple[int, int]:
    """Return user and group ids of the owner of what root makes; make the user if need be.

    Raises:
        EventStoreUnavailable: there is no such user, and none could be made.
    """
    try:
        entry = pwd.getpwnam(_OWNER)
    except KeyError:
        where = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # often not in the PATH of one who became root
        useradd = shutil.which("useradd", path=where) or "useradd"
        command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", _OWNER]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
            said = " ".join(told.stderr.split())
        except OSError as error:
            said = str(error)
        try:
            entry = pwd.getpwnam(_OWNER)
        except KeyError:
            raise EventStoreUnavailable(
                f"PostgreSQL may not run as root, and the user {_OWNER} could not be made for it: {said}; make that "
                f"user, start the service as another user than root, {WITHOUT}"
            ) from None
    return entry.pw_uid, entry.pw_gid


def _rewrite(home: Home, name: str, text: str) -> bool:
    """Give a file in the data folder this content; return whether it had another.

    The folder's owner may have put anything there under any name: root neither follows links nor keeps the old file.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=home.descriptor)
        with open(descriptor) as file:  # noqa: PTH123 - a descriptor, not a path
            if file.read() == text:
                return False
    except OSError:
        pass
    fresh = f"{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=home.descriptor)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(fresh, flags, 0o600, dir_fd=home.descriptor), "w") as file:  # noqa: PTH123
        os.fchown(file.fileno(), home.uid, home.gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, name, src_dir_fd=home.descriptor, dst_dir_fd=home.descriptor)
    return True
