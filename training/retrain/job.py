"""The job: waits for its time or a request, does the run, and records how it went."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg

from embeddings.database import runs
from embeddings.database.connection import connected
from embeddings.database.migrate import prepare
from embeddings.database.runs import End, Progress, Run
from embeddings.errors import EventStoreUnavailable, OpportuneError
from embeddings.release.bundle import read_manifest
from embeddings.release.store import BundleStore
from training.retrain.child import Child, NotStarted, Settings, started
from training.retrain.schedule import Schedule

_log = logging.getLogger("opportune.retrain")

ACTOR = "opportune-retrain"
"""Who asks for the runs that no person asked for."""

_MOST_ATTEMPTS = 3
_PUBLISHED, _BAD_INPUT, _REFUSED = 0, 2, 3
_POLL_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
"""A clock that is set, or a machine that slept, is noticed so soon."""
_LOST_SECONDS, _AGAIN_SECONDS = 2.0, 2.0
"""Pauses before another connection, and before another attempt."""


class _Outcome(NamedTuple):
    """What a run came to, until it is recorded: its connection may be lost first.

    Attributes:
        child: the attempt that came to it; None if there was none.
    """

    run: Run
    child: Child | None
    ended: End


class Job:
    """A retraining job of possibly several: one of them does the runs, the others wait to take its place.

    Args:
        settings: of its runs.
        url: of PostgreSQL.
        schedule: when a run is due; None for on request alone.
        once: whether to ask for one run, and to leave once that has ended, whoever did it.
    """

    def __init__(self, settings: Settings, url: str, schedule: Schedule | None, *, once: bool) -> None:
        self._settings = settings
        self._store = BundleStore(settings.store)
        self._url = url
        self._schedule = schedule
        self._once = once
        self._awaited: int | None = None
        self._interrupted: int | None = None
        self._outcome: _Outcome | None = None
        self._leaving = asyncio.Event()
        self._woken = asyncio.Event()

    def leave(self) -> None:
        """Stop what is under way and leave; the run waits to be taken up again, from its checkpoint."""
        self._leaving.set()
        self._woken.set()

    async def work(self) -> Run | None:
        """Do runs until told to leave, or once; return the one that was asked for, if that has ended.

        The schema is migrated first. While PostgreSQL does not answer it tries again and again.

        Raises:
            InvalidInput: the URL is none of a PostgreSQL, or its schema is of another version.
        """
        prepared = False
        while not self._leaving.is_set():
            try:
                if not prepared:
                    await prepare(self._url)
                    prepared = True
                async with connected(self._url, refuses="the retraining job") as connection:
                    return await self._attend(connection)
            except EventStoreUnavailable as error:
                _log.warning("%s; trying again in %g s", error, _LOST_SECONDS)
            await self._pause(_LOST_SECONDS)
        return None

    async def _attend(self, connection: asyncpg.Connection) -> Run | None:
        """Do what `work` does, on one connection, which is also what holds the lock of the one that does the runs."""
        connection.add_termination_listener(self._wake)
        await runs.listen(connection, self._woken.set)
        if self._once and self._awaited is None:
            self._awaited = (await runs.request(connection, ACTOR, "request")).id
        leads, waited = False, False
        while not self._leaving.is_set():
            self._woken.clear()
            if self._awaited is not None and (found := await runs.find(connection, self._awaited)) and found.ended_at:
                return found
            leads = leads or await runs.lead(connection)
            if not leads:
                if not waited:
                    _log.info("another job does the runs; this one waits to take its place")
                waited = True
                await self._sleep(_POLL_SECONDS)
            elif self._outcome is not None:
                await self._record(connection, self._outcome)
            elif (run := await runs.take(connection, self._interrupted)) is not None:
                self._interrupted = run.id  # should the connection be lost
                await self._do(connection, run)
                self._interrupted = None
            else:
                await self._wait(connection)
        return None

    async def _wait(self, connection: asyncpg.Connection) -> None:
        """Wait for a request, or ask for a run when its time has come."""
        if self._schedule is None:
            await self._sleep(_LONGEST_WAIT_SECONDS)
            return
        due = self._schedule.after(datetime.now(UTC))
        while not self._woken.is_set():
            left = (due - datetime.now(UTC)).total_seconds()
            if left <= 0:
                await runs.request(connection, ACTOR, "schedule")
                return
            await self._sleep(min(left, _LONGEST_WAIT_SECONDS))

    async def _do(self, connection: asyncpg.Connection, run: Run) -> None:
        """Make one attempt at a run."""
        if run.attempts > _MOST_ATTEMPTS:
            said = f"it was started {_MOST_ATTEMPTS} times and never ended; its log may say why"
            await self._record(connection, _Outcome(run, None, End(state="failed", message=said)))
            return
        _log.info("run %d (%s by %s), attempt %d", run.id, run.reason, run.requested_by, run.attempts)
        # A run whose job was killed ends a moment later, and one by hand some time.
        while self._store.is_training() and not self._leaving.is_set():
            await runs.tell(connection, run.id, Progress("waiting for another run into this store", 0, 1), "")
            await self._pause(_POLL_SECONDS)
        if self._leaving.is_set():
            await self._requeue(connection, run)
            return
        try:
            child = await self._attempt(connection, run)
        except NotStarted as error:
            ended = End(state="failed", message=f"training cannot be started: {error}")
            await self._record(connection, _Outcome(run, None, ended))
            return
        if self._outcome is not None:
            await self._record(connection, self._outcome)
            return
        await runs.tell(connection, run.id, _progress(child), child.log)
        if self._leaving.is_set():
            await self._requeue(connection, run)
        elif run.attempts < _MOST_ATTEMPTS:
            how = _how(child)
            _log.warning("run %d: attempt %d %s; another follows", run.id, run.attempts, how)
            await runs.wait(connection, run.id, f"attempt {run.attempts} {how}; another follows", counts=True)
            await self._pause(_AGAIN_SECONDS)
        else:
            said = f"attempt {run.attempts}, the last, {_how(child)}"
            await self._record(connection, _Outcome(run, child, End(state="failed", message=said)))

    async def _attempt(self, connection: asyncpg.Connection, run: Run) -> Child:
        """Start a training and follow it to its end; what it came to is kept, even if the connection is lost."""
        async with started(self._settings) as child:
            try:
                await self._follow(connection, run, child)
            finally:
                await child.stop()
                if (ended := self._ending(child)) is not None:
                    self._outcome = _Outcome(run, child, ended)
            return child

    async def _follow(self, connection: asyncpg.Connection, run: Run, child: Child) -> None:
        """Tell how far a child is until it ends or this job is to leave."""
        ended, leaving = asyncio.create_task(child.ended()), asyncio.create_task(self._leaving.wait())
        told: tuple[Progress | None, str] = (None, "")
        try:
            while not ended.done() and not leaving.done():
                await asyncio.wait((ended, leaving), timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                now = _progress(child), child.log
                if now != told:
                    await runs.tell(connection, run.id, *now)
                    told = now
                elif connection.is_closed():
                    raise ConnectionResetError("the connection to PostgreSQL was lost")
        finally:
            leaving.cancel()

    def _ending(self, child: Child) -> End | None:
        """Return how a run has ended with a child that has; None if it goes on with another."""
        if child.code == _PUBLISHED:
            metrics = _metrics(self._store, child.release)
            return End(state="published", release=child.release, metrics=metrics)
        if child.code in (_REFUSED, _BAD_INPUT):
            said = child.said or (child.log.strip().splitlines() or [""])[-1]
            return End(state="refused" if child.code == _REFUSED else "failed", message=said)
        return None

    async def _record(self, connection: asyncpg.Connection, outcome: _Outcome) -> None:
        """Record what a run came to; where that fails, it is the first thing to do on the next connection."""
        self._outcome = outcome
        run, child, ended = outcome
        now = await runs.find(connection, run.id)
        if now is not None and now.ended_at is None:  # else another job has done it again meanwhile
            if child is not None:
                await runs.tell(connection, run.id, _progress(child), child.log)
            await runs.end(connection, run.id, ended)
            _log.info("run %d: %s %s", run.id, ended.state, ended.release or ended.message)
        self._outcome = self._interrupted = None

    async def _requeue(self, connection: asyncpg.Connection, run: Run) -> None:
        said = "interrupted, as its job was told to leave; goes on where it was as soon as a job runs"
        await runs.wait(connection, run.id, said, counts=False)
        _log.info("run %d is %s", run.id, said)

    def _wake(self, *_: object) -> None:
        self._woken.set()

    async def _sleep(self, seconds: float) -> None:
        """Wait until woken, so many seconds at most."""
        await _within(self._woken, seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait so many seconds, unless told to leave."""
        await _within(self._leaving, seconds)


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _progress(child: Child) -> Progress | None:
    return None if child.line is None else Progress(child.line.stage, child.line.done, child.line.of)


def _how(child: Child) -> str:
    code = child.code
    ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return f"{ended}: {child.said}" if child.said else ended


def _metrics(store: BundleStore, release: str) -> Mapping[str, Mapping[str, float]] | None:
    """Return the metrics of a release; None if it was pruned meanwhile."""
    try:
        return read_manifest(store.bundle(release)).metrics
    except OpportuneError as error:
        _log.warning("the metrics of %s are not recorded: %s", release, error)
        return None
