"""Says how far a run is to whoever started it, in lines of JSON on an open descriptor.

What is told goes the way of what is logged: nothing is handed through the run for it, and nothing happens to it unless
somebody asked.
"""

import logging
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

import msgspec
from msgspec import Struct

_log = logging.getLogger("opportune.progress")
_log.propagate = False

_OFTEN_SECONDS = 0.2
"""Within a stage a line is written at most so often."""


class Line(Struct, frozen=True, omit_defaults=True):
    """A line of what is told.

    Attributes:
        stage: what the run does now.
        done: how much of the stage is done.
        of: how much there is to do in it.
        release: the version that was published, once it is.
        said: with the last line, what the command says at its end.
    """

    stage: str
    done: int
    of: int
    release: str = ""
    said: str = ""


def tell(stage: str, done: int = 0, of: int = 1) -> None:
    """Say how far the run is."""
    _tell(Line(stage, done, of))


def tell_published(release: str) -> None:
    """Say which version was published."""
    _tell(Line("published", 1, 1, release=release))


def tell_end(said: str) -> None:
    """Say what the command says at its end."""
    _tell(Line("ended", 1, 1, said=said))


def tell_to(descriptor: int, gone: Callable[[], None]) -> None:
    """Write what is told to a pipe from now on, and call a function once nobody is left to read it.

    Raises:
        OSError: there is no such descriptor.
    """
    os.fstat(descriptor)
    os.set_inheritable(descriptor, False)
    watched = select.poll()
    watched.register(descriptor, 0)  # that its reader is gone is told unasked

    def watch() -> None:
        watched.poll()
        gone()

    Thread(target=watch, daemon=True).start()
    _log.setLevel(logging.INFO)
    _log.addHandler(_Lines(descriptor))


def _tell(line: Line) -> None:
    _log.info("", extra={"line": line})


class _Lines(logging.Handler):
    """Writes what is told to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._stage, self._written = "", 0.0

    def emit(self, record: logging.LogRecord) -> None:
        line: Line = record.__dict__["line"]
        now = time.monotonic()
        if line.stage == self._stage and line.done < line.of and now - self._written < _OFTEN_SECONDS:
            return
        self._stage, self._written = line.stage, now
        with suppress(OSError):  # its reader is gone, which the other thread minds
            os.write(self._descriptor, msgspec.json.encode(line) + b"\n")
