"""One attempt at a run: ``opportune-train`` as a child process, what it tells and how it ended."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from embeddings.database.connection import DATABASE_VARIABLE
from training.progress import Line

_LEAVING_SECONDS = 10.0
"""How long a run may take to end at SIGTERM; it does so at once, whatever it is doing."""

_LONGEST_LOG = 16_384
_SCREEN = {"COLUMNS": "160", "LINES": "25"}
"""What the child takes for its screen: without, it would break its lines after 80 letters, as nobody looks."""


class NotStarted(Exception):
    """The system did not start a process."""


class Settings(Struct, frozen=True, kw_only=True):
    """What every run of a job is started with.

    Attributes:
        store: where to publish.
        database: the URL of PostgreSQL; None for the one that is embedded beside the store.
        data, recipe, device, gated: as ``opportune-train`` has them.
    """

    store: Path
    database: str | None
    data: str
    recipe: Path | None
    device: str
    gated: bool

    def command(self, progress: int) -> Sequence[str]:
        """Return the arguments of ``opportune-train``; the database's URL is told by the environment."""
        recipe = [] if self.recipe is None else ["--recipe", str(self.recipe)]
        gate = [] if self.gated else ["--no-gate"]
        return [
            *("--data", self.data, "--store", str(self.store), "--device", self.device, "--progress", str(progress)),
            *recipe,
            *gate,
        ]

    def environment(self) -> Mapping[str, str]:
        """Return the environment of the child, which tells it the database's URL: others can read its arguments."""
        named = {} if self.database is None else {DATABASE_VARIABLE: self.database}
        return {**_SCREEN, **os.environ, "PYTHONUNBUFFERED": "1", **named}


class Child:
    """A training that was started.

    Attributes:
        line: what it told last; None at first.
        release: the version that it published; empty until then.
        said: what it said at its end; empty until then.
        log: the end of what it printed.
    """

    def __init__(self, process: asyncio.subprocess.Process, told: asyncio.StreamReader) -> None:
        self.line: Line | None = None
        self.release = self.said = self.log = ""
        self._process = process
        self._reading = [asyncio.create_task(self._hear(told)), asyncio.create_task(self._read())]

    @property
    def code(self) -> int:
        """Its exit code, or minus the signal that ended it; there is none before its end."""
        code = self._process.returncode
        assert code is not None  # noqa: S101 - who asks has waited for its end
        return code

    async def ended(self) -> None:
        """Wait for its end, and for all that it told."""
        await self._process.wait()
        await asyncio.gather(*self._reading)

    async def stop(self) -> None:
        """Have it end at once, if it has not; it goes on from its checkpoint when it is started again."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_LEAVING_SECONDS):
                await self.ended()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _hear(self, told: asyncio.StreamReader) -> None:
        while text := await told.readline():
            line = msgspec.json.decode(text, type=Line)
            self.release, self.said = line.release or self.release, line.said or self.said
            if not line.said:
                self.line = line

    async def _read(self) -> None:
        printed = self._process.stdout
        assert printed is not None  # noqa: S101 - a pipe was asked for
        kept = b""
        while some := await printed.read(_LONGEST_LOG):
            sys.stdout.buffer.write(some)
            sys.stdout.buffer.flush()
            kept = (kept + some)[-_LONGEST_LOG:]
            self.log = kept.decode(errors="replace")


@asynccontextmanager
async def started(settings: Settings) -> AsyncGenerator[Child]:
    """Start a training and yield it; it ends with the block, and with this process however that ends.

    Its descriptor for progress is a pipe that this process alone reads: it stops once nobody does.

    Raises:
        NotStarted: it cannot be.
    """
    reading, writing = os.pipe()
    told = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), os.fdopen(reading, "rb", 0)
    )
    try:
        try:
            # In a session of its own it does not hear Ctrl-C, which tells everybody: this process says when to stop.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "training", *settings.command(writing)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,
                env=settings.environment(),
            )
        except OSError as error:
            raise NotStarted(str(error)) from error
        finally:
            os.close(writing)
        child = Child(process, told)
        try:
            yield child
        finally:
            if process.returncode is None:
                await child.stop()
    finally:
        transport.close()
