"""Several processes on one port: forked from one that has opened the model, replaced when they die."""

import asyncio
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

import psutil

from embeddings.errors import InvalidInput, OpportuneError

_log = logging.getLogger("opportune.serve")

_TOLD = {signal.SIGTERM, signal.SIGINT}
_LONGEST_FOLDER = 90
"""Letters; the name of a socket may have 107."""
_KILL_AFTER_SECONDS = 3.0
"""How much longer than they promise workers may take to leave."""
_OTHER_DESCRIPTORS = 128
"""For PostgreSQL's connections and for the files of models, while one takes over from another."""
# A worker that dies within so many seconds of its start is replaced after a pause, twice as long each time in a row.
_STEADY_SECONDS, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 0.1, 30.0


class WorkerPlace(NamedTuple):
    """A worker's place among the workers of a server.

    Attributes:
        worker: which one it is, from 0 up; one that replaces another takes over its number.
        workers: how many there are.
        folder: of this server alone, for what workers show each other.
        lifeline: a descriptor to read from, which ends when the parent does.
        alone: whether no other worker ran when this one was started.
    """

    worker: int
    workers: int
    folder: Path
    lifeline: int
    alone: bool

    @property
    def _serving(self) -> Path:
        return self.folder / "serving"

    def say_serving(self, version: str) -> None:
        """Write the version that this worker has taken to a file, for a worker that replaces another."""
        fresh = self.folder / f"serving.{self.worker}"
        try:
            fresh.write_text(version)
            fresh.rename(self._serving)
        except OSError as error:
            _log.error("cannot leave word of version %s for other workers: %s", version, error)

    def said_serving(self) -> str | None:
        """Return the version that a worker has taken last; None if none has taken another than the first."""
        try:
            return self._serving.read_text()
        except FileNotFoundError:
            return None

    def leave_with_parent(self) -> None:
        """Have the running event loop end this process as SIGTERM would, once the parent is gone."""
        loop = asyncio.get_running_loop()

        def leave() -> None:
            loop.remove_reader(self.lifeline)
            shutil.rmtree(self.folder, ignore_errors=True)  # nobody else is left to do it
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(self.lifeline, leave)


class _Worker(NamedTuple):
    """A worker that runs: when it was started, by the monotonic clock, and after which pause."""

    number: int
    started: float
    pause: float


class _Due(NamedTuple):
    """A worker that is to be started: when it is due, by the monotonic clock, and after which pause."""

    number: int
    due: float
    pause: float


def bind(host: str, port: int, options: str = "--host, --port") -> list[socket.socket]:
    """Return sockets bound to every address of a host, not listening yet; errors name the options.

    Raises:
        InvalidInput: the port is taken, or the host is none of this machine's.
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
    except (OSError, OverflowError) as error:
        raise _not_free(host, port, bound, error, options) from error
    return bound


def listen(
    sockets: Sequence[socket.socket], host: str, port: int, backlog: int, options: str = "--host, --port"
) -> None:
    """Listen on bound sockets; raise InvalidInput if somebody else has begun to since."""
    try:
        for one in sockets:
            one.listen(backlog)
    except OSError as error:
        raise _not_free(host, port, sockets, error, options) from error


def _not_free(host: str, port: int, sockets: Sequence[socket.socket], error: Exception, options: str) -> InvalidInput:
    for one in sockets:
        one.close()
    return InvalidInput(options, f"expected an address that is free, but {host}:{port} is not: {error}")


def room_for(connections: int) -> int:
    """Return how many of so many connections this process may hold, once its limit of open files is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        room = min(connections, max(soft - _OTHER_DESCRIPTORS, soft // 2))
        if room < connections:
            _log.warning(
                "--connections: there is room for %d, not for %d, as a process may open %d files here; "
                "raise that limit to %d (ulimit -n)",
                *(room, connections, soft, wanted),
            )
        return room
    return connections


def supervise(
    workers: int, sockets: Sequence[socket.socket], drain_seconds: float, work: Callable[[WorkerPlace], None]
) -> None:
    """Keep that many workers running until SIGTERM or SIGINT, then have them leave.

    Args:
        workers: how many.
        sockets: that workers inherit; closed here when they are told to leave, so that the last frees the port.
        drain_seconds: how long workers take to leave at most.
        work: what a worker does; told to leave by SIGTERM. It runs in a fork of this process as it is now.

    Raises:
        InvalidInput: this process has several threads, of which a fork would keep one and whatever locks others held;
            or there is no folder for temporary files, or its path is too long.
    """
    threads = psutil.Process().num_threads()
    if threads != 1:
        raise InvalidInput(
            "--workers",
            f"expected 1 in a process of {threads} threads, which cannot be forked safely; leave OMP_NUM_THREADS, "
            "OPENBLAS_NUM_THREADS and ORT_DISABLE_TELEMETRY unset, or set them to 1",
        )
    try:
        shared = tempfile.TemporaryDirectory(prefix="opportune-")
    except OSError as error:
        raise InvalidInput("TMPDIR", f"expected a folder that can be written, for workers: {error}") from error
    # Blocked, signals wait for sigtimedwait: nothing can come between looking and waiting.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_TOLD, signal.SIGCHLD})
    lifeline = os.pipe()
    running: dict[int, _Worker] = {}
    with shared as folder:
        if len(folder) > _LONGEST_FOLDER:
            raise InvalidInput("TMPDIR", f"expected a shorter path for the sockets of workers, got {folder}")
        _keep(
            running,
            {number: _Due(number, 0.0, 0.0) for number in range(workers)},
            lambda number: _fork(
                WorkerPlace(number, workers, Path(folder), lifeline[0], alone=not running), lifeline[1], work
            ),
        )
        for one in sockets:
            one.close()
        # Ctrl-C told the workers too, who do not hear it: a second signal would mean not to drain.
        _end(running, signal.SIGTERM, drain_seconds + _KILL_AFTER_SECONDS)
        _end(running, signal.SIGKILL, _KILL_AFTER_SECONDS)


def _keep(running: dict[int, _Worker], due: dict[int, _Due], fork: Callable[[int], int]) -> None:
    """Fork workers when they are due, until told to leave."""
    told = None
    while told not in _TOLD:
        for number, moment, pause in list(due.values()):
            if moment > time.monotonic():
                continue
            try:
                pid = fork(number)
            except OSError as error:
                _log.error("cannot start worker %d: %s", number, error)
                due[number] = _again(number, pause, 0.0)
            else:
                del due[number]
                running[pid] = _Worker(number, time.monotonic(), pause)
                _log.info("worker %d is process %d", number, pid)
        told = _signal(min((one.due for one in due.values()), default=None))
        for pid, status in _ended(running):
            worker = running.pop(pid)
            _log.error("worker %d, process %d, ended with %d; another follows", worker.number, pid, status)
            due[worker.number] = _again(worker.number, worker.pause, time.monotonic() - worker.started)


def _end(running: dict[int, _Worker], number: signal.Signals, seconds: float) -> None:
    """Send workers a signal, and wait until they have ended, at most so many seconds."""
    for pid in running:
        os.kill(pid, number)
    until = time.monotonic() + seconds
    while running and time.monotonic() < until:
        _signal(until)
        for pid, status in _ended(running):
            worker = running.pop(pid)
            _log.log(logging.ERROR if status else logging.INFO, "worker %d left with %d", worker.number, status)


def _again(number: int, paused: float, lived_seconds: float) -> _Due:
    """Return the worker to be started in place of one that was started after a pause and lived so long."""
    pause = 0.0
    if lived_seconds < _STEADY_SECONDS:
        pause = min(max(2 * paused, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
    return _Due(number, time.monotonic() + pause, pause)


def _signal(until: float | None) -> int | None:
    """Wait for the next signal until a moment, or for ever if that is None; return None if no signal came."""
    expected = {*_TOLD, signal.SIGCHLD}
    if until is None:
        return signal.sigwait(expected)
    came = signal.sigtimedwait(expected, max(0.0, until - time.monotonic()))
    return None if came is None else came.si_signo


def _ended(running: dict[int, _Worker]) -> list[tuple[int, int]]:
    """Return workers that have ended since the last call: their processes, and exit codes or minus their signals."""
    found = [os.waitpid(pid, os.WNOHANG) for pid in running]
    return [(pid, os.waitstatus_to_exitcode(status)) for pid, status in found if pid]


def _fork(place: WorkerPlace, lifelines_end: int, work: Callable[[WorkerPlace], None]) -> int:
    """Fork a worker, and return its process number."""
    pid = os.fork()
    if pid == 0:
        _be(place, lifelines_end, work)
    return pid


def _be(place: WorkerPlace, lifelines_end: int, work: Callable[[WorkerPlace], None]) -> NoReturn:
    """Do a worker's work, and exit without running what the parent will run when it exits itself."""
    code: object = 1
    try:
        os.close(lifelines_end)  # the parent alone holds it open
        # Before uvicorn listens to it nothing is under way, and after it has drained nothing is left to be done.
        signal.signal(signal.SIGTERM, _vanish)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
        work(place)
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    except OpportuneError as error:
        _log.error("worker %d cannot go on: %s", place.worker, error)
    except BaseException:
        _log.exception("worker %d failed", place.worker)
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _vanish(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(0)
