"""Keep the embedded PostgreSQL running: find it, start it, start it again when it has died, stop it."""

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from embeddings.database.embedded import OWN_FOLDER, PORT, Home, as_owner
from embeddings.database.postmaster import accepts, clear, ended, is_of_an_earlier_version, running
from embeddings.errors import EventStoreUnavailable
from embeddings.locks import open_lock, try_for

_log = logging.getLogger("opportune.serve")

_OPTIONS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    # What reads all days at once, such as a training, locks each of some hundred partitions and its indexes.
    "max_locks_per_transaction": "256",
}
_LOOK_SECONDS = 0.2
_MOST_ENDS = 7
"""So often a start may fail, which takes 6 s: what is left of one that was killed may have to end first."""
_ABSENT_SECONDS = 10.0
"""So long another keeper may take to start it."""
_TELL_SECONDS = 10.0
_STEADY_SECONDS, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 0.1, 30.0
_STOPS = ((signal.SIGINT, 4.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 1.0))
"""How PostgreSQL is told to stop, and how long that may take: fast, at once, and killed. No event is lost by any."""
_LARGEST_LOG = 2**20
_TO_CLIENTS = ("the database system is", "terminating connection")
"""What PostgreSQL says to those who connect, and why is another matter."""


class Keeper:
    """Looks after one PostgreSQL; of all keepers, in whatever process, the one that holds the lock starts it.

    A process is known by its descriptor, never by its number alone, which may be another's by now.
    """

    def __init__(self, home: Home) -> None:
        self.ready = False
        self._home = home
        self._lock = open_lock(home.state / "keeper.lock")
        self._log = os.open(home.log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(self._log, 0o600)
        self._process: int | None = None
        self._child: subprocess.Popen[Any] | None = None
        self._ends = 0
        self._log_start = os.fstat(self._log).st_size
        self._since = self._due = time.monotonic()
        self._pause = _FIRST_PAUSE_SECONDS

    def close(self) -> None:
        """Close what is open; PostgreSQL goes on."""
        self.rest()
        os.close(self._lock)
        os.close(self._log)

    def wait(self) -> None:
        """Wait until PostgreSQL answers, however long it recovers, started by this keeper or by another one.

        Raises:
            EventStoreUnavailable: it ends whenever it is started, or another keeper does not start it.
        """
        seen = told = time.monotonic()
        while True:
            self.look()
            if self.ready:
                return
            now = time.monotonic()
            if self._process is not None:
                seen = now
            if self._ends >= _MOST_ENDS or now - seen > _ABSENT_SECONDS:
                mine = try_for(self._lock, fcntl.LOCK_EX)
                why = self._last_line() if mine else f"another process holds {self._home.state / 'keeper.lock'}"
                raise EventStoreUnavailable(
                    f"the embedded PostgreSQL in {self._home.folder} did not start: {why}; its log is {self._home.log}"
                )
            if now - told > _TELL_SECONDS:
                _log.info("waiting for PostgreSQL in %s to recover", self._home.folder)
                told = now
            time.sleep(_LOOK_SECONDS / 4)

    def rest(self) -> None:
        """Leave PostgreSQL to other keepers; it goes on."""
        self.ready = False
        if self._process is not None:
            os.close(self._process)
            self._process = None
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def keep(self, leaving: threading.Event) -> None:
        """Start PostgreSQL again whenever it has died, until told to leave."""
        while not leaving.is_set():
            if not try_for(self._lock, fcntl.LOCK_EX):
                leaving.wait(_LOOK_SECONDS)
            elif self.ready and self._process is not None and not ended(self._process, _LOOK_SECONDS):
                self._bound_log()
            else:
                try:
                    self.look()
                except (OSError, EventStoreUnavailable) as error:
                    _log.error("cannot look after PostgreSQL: %s", error)
                    leaving.wait(_LONGEST_PAUSE_SECONDS)
                leaving.wait(_LOOK_SECONDS / 4)

    def look(self) -> None:
        """Check whether PostgreSQL runs and answers; start it if it is time to and no other keeper does."""
        if self._process is not None and ended(self._process, 0):
            self._bury(self._process)
        if self._process is None:
            self._process = running(self._home)
        if self._process is None:
            if time.monotonic() >= self._due and try_for(self._lock, fcntl.LOCK_EX):
                self._launch()
        elif not self.ready:
            if is_of_an_earlier_version(self._home):
                self.stop()  # where others may connect; the next look starts it anew
                return
            self.ready = accepts(self._home)
            if self.ready and self._ends:
                _log.info("PostgreSQL answers again")
                self._ends = 0

    def stop(self) -> None:
        """Stop PostgreSQL, within seconds, whoever started it."""
        process = running(self._home) if self._process is None else self._process
        if process is None:
            return
        for number, seconds in _STOPS:
            if ended(process, 0):
                break
            signal.pidfd_send_signal(process, number)
            if ended(process, seconds):
                break
        else:
            _log.error("PostgreSQL in %s does not end", self._home.folder)
        if process is not self._process:
            os.close(process)
        if self._child is not None:
            self._child.poll()  # no zombie is left

    def reload(self) -> None:
        """Make PostgreSQL read its rules of access again, if it runs."""
        process = running(self._home)
        if process is not None:
            signal.pidfd_send_signal(process, signal.SIGHUP)
            os.close(process)

    def _launch(self) -> None:
        """Start PostgreSQL without waiting for it; called where none runs, with the lock held."""
        clear(self._home)
        self._log_start = os.fstat(self._log).st_size
        options = [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]
        try:
            child = subprocess.Popen(  # noqa: S603 - our own command
                [self._home.programs / "postgres", "-D", OWN_FOLDER, *options],
                **as_owner(self._home),
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the service, which stops it when it has drained
            )
        except OSError as error:
            os.write(self._log, f"FATAL:  {error}\n".encode())
            self._ends += 1
            self._put_off()
            return
        self._child, self._process = child, os.pidfd_open(child.pid)
        self._since = time.monotonic()
        _log.info("PostgreSQL in %s is process %d", self._home.folder, child.pid)

    def _bury(self, process: int) -> None:
        """Note that PostgreSQL has ended, and set when it is started again."""
        os.close(process)
        self._process = None
        self._ends += 1
        if self._child is not None:
            self._child.wait()  # no more than to be rid of it
            self._child = None
        if self.ready and time.monotonic() - self._since >= _STEADY_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self.ready = False
        self._put_off()
        _log.error("PostgreSQL has ended and is started again; it said last: %s", self._last_line())

    def _put_off(self) -> None:
        self._due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _last_line(self) -> str:
        """Return what PostgreSQL wrote last since its last start: the reason for its end, if it gave one."""
        end = os.fstat(self._log).st_size
        start = max(self._log_start if self._log_start <= end else 0, end - 2**14)
        lines = os.pread(self._log, end - start, start).decode(errors="replace").splitlines()
        own = [line for line in lines if not any(said in line for said in _TO_CLIENTS)]
        fatal = [line for line in own if "FATAL:" in line or "PANIC:" in line]
        return (fatal or own or ["nothing"])[-1].strip()

    def _bound_log(self) -> None:
        """Begin the log anew once it is too large, and keep the one before it."""
        if os.fstat(self._log).st_size > _LARGEST_LOG:
            with suppress(OSError):
                shutil.copyfile(self._home.log, self._home.log.with_suffix(".log.1"))
                self._home.log.with_suffix(".log.1").chmod(0o600)
            os.ftruncate(self._log, 0)  # PostgreSQL appends, wherever the end is


@contextmanager
def kept(home: Home) -> Generator[None]:
    """Keep PostgreSQL running, by a thread beside the block, unless another process does."""
    keeper, leaving = Keeper(home), threading.Event()
    thread = threading.Thread(target=keeper.keep, args=(leaving,), name="postgres")
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()
        keeper.close()
