"""The process of the embedded PostgreSQL of a data folder: how to find it, and whether it accepts connections.

A number in a file proves nothing: the process may be gone, or the number another's by now. PostgreSQL is whoever
listens on the socket in the folder, as the kernel tells, or else a living process that works in that very folder.
"""

import os
import select
import socket
import struct
from contextlib import suppress
from pathlib import Path

from embeddings.database.embedded import OWN_FOLDER, PORT, SUPERUSER, Home
from embeddings.errors import EventStoreUnavailable

_SOCKET = f".s.PGSQL.{PORT}"
_PID_FILE = "postmaster.pid"
_PATIENCE_SECONDS = 1.0


def running(home: Home) -> int | None:
    """Return a descriptor of the process that is the PostgreSQL of a data folder; None if there is none.

    Raises:
        EventStoreUnavailable: it runs, but where this process cannot see it.
    """
    pid = _found(home)
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if _found(home) == pid:  # still, so that the descriptor is of no later process with that number
        return process
    os.close(process)
    return None


def _found(home: Home) -> int | None:
    """Return the number of the process that listens on the socket of a data folder, or is about to; else None."""
    try:
        with _connected(home) as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        pid = _written(home)
        return pid if pid is not None and _works_in(pid, home) else None
    pid, uid, _ = struct.unpack("3i", credentials)
    if pid == 0:
        raise EventStoreUnavailable(f"a PostgreSQL of another container runs in {home.folder}; a store is for one")
    return pid if uid == home.uid else None


def _connected(home: Home) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_PATIENCE_SECONDS)
        connection.connect(f"{home.inside}/{_SOCKET}")
    except OSError:
        connection.close()
        raise
    return connection


def accepts(home: Home) -> bool:
    """Return whether PostgreSQL accepts connections, asked as its own pg_isready does."""
    if _line(home, 7) == "starting":  # it says so itself: asking would be one more line in its log
        return False
    content = struct.pack("!i", 3 << 16) + f"user\0{SUPERUSER}\0database\0{SUPERUSER}\0\0".encode()
    try:
        with _connected(home) as connection:
            connection.sendall(struct.pack("!i", len(content) + 4) + content)
            return connection.recv(1) == b"R"
    except OSError:
        return False


def is_of_an_earlier_version(home: Home) -> bool:
    """Return whether PostgreSQL knows its data folder by a path, which it may no longer reach, or listens elsewhere."""
    return _line(home, 1) not in ("", OWN_FOLDER)


def _line(home: Home, number: int) -> str:
    """Return a line of the pid file, counted from 0; empty where there is none."""
    try:
        descriptor = os.open(_PID_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=home.descriptor)
    except OSError:
        return ""
    with open(descriptor, errors="replace") as file:  # noqa: PTH123 - a descriptor, not a path
        lines = file.read(10_000).splitlines()
    return lines[number].strip() if number < len(lines) else ""


def _written(home: Home) -> int | None:
    """Return the process number in the pid file, even if it is another process's by now; None if there is none."""
    first = _line(home, 0)
    return int(first) if first.isascii() and first.isdecimal() and 0 < int(first) < 2**31 else None


def _works_in(pid: int, home: Home) -> bool:
    """Return whether a process lives, is no zombie, and works in the data folder."""
    try:
        theirs, ours = Path(f"/proc/{pid}/cwd").stat(), os.fstat(home.descriptor)
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def clear(home: Home) -> None:
    """Remove the files that PostgreSQL would take for a sign of another one, though their process is something else.

    Where the process is gone, PostgreSQL sees that for itself, and looks for what may be left of it in shared memory.
    """
    pid = _written(home)
    if pid is not None and not Path(f"/proc/{pid}").exists():
        return
    for name in (_PID_FILE, f"{_SOCKET}.lock"):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=home.descriptor)


def ended(process: int, seconds: float) -> bool:
    """Return whether a process has ended, or ends within so many seconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1_000))
