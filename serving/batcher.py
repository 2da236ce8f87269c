"""Natural batching: whatever waits is computed together, with what arrives in one more turn of the event loop.

Nobody waits for more to come. But what has arrived lies in sockets until the loop looks at them, and in a batch of its
own it would cost half as much again. What is too much for a batch is computed by itself, in pieces, with a batch of
whatever else waits before each: it takes longer for others, and nobody waits for all of it.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from embeddings.errors import Overloaded

Request = TypeVar("Request")
Answered = TypeVar("Answered")

_Waiting: TypeAlias = tuple[Request, "asyncio.Future[Answered]", float, int]

InPieces: TypeAlias = Generator[None, None, Answered]
"""Yields after every piece of the work, and returns the answer."""


class Pieces(NamedTuple, Generic[Request, Answered]):
    """The way to compute a request that is too much for a batch.

    Attributes:
        rows: how much one costs.
        most: the most that a batch may cost.
        compute: answers one that costs more, in pieces.
    """

    rows: Callable[[Request], int]
    most: int
    compute: Callable[[Request], InPieces[Answered]]


class Batcher(Generic[Request, Answered]):
    """Collects requests and answers them in batches.

    Every future completes: with its answer, with the error that its batch raised, or with Overloaded if its turn
    came after its deadline.

    Attributes:
        batches: how many were computed so far.
        computed: how many answers they held.

    Args:
        compute: answers a batch, in order.
        largest: the most to compute at once, so that one batch cannot hold the event loop for long.
        executor: the single thread that owns the device; None computes on the event loop itself.
        deadline_seconds: how long a request may wait for its turn.
        pieces: what is too much for a batch; None where nothing is.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Request]], Sequence[Answered]],
        largest: int,
        executor: Executor | None = None,
        deadline_seconds: float = math.inf,
        pieces: Pieces[Request, Answered] | None = None,
    ) -> None:
        self._compute = compute
        self._largest = largest
        self._deadline = deadline_seconds
        self._executor = executor
        self._pieces = pieces
        self._waiting: deque[_Waiting[Request, Answered]] = deque()
        self._large: deque[_Waiting[Request, Answered]] = deque()
        self._under_way: tuple[InPieces[Answered], asyncio.Future[Answered]] | None = None
        self._large_next = False
        self._scheduled = False
        self.batches = 0
        self.computed = 0

    def submit(self, asked: Request) -> "asyncio.Future[Answered]":
        """Ask for one answer, and return its future; to be called on the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        rows = 0 if self._pieces is None else self._pieces.rows(asked)
        waiting = self._large if self.too_much(rows) else self._waiting
        waiting.append((asked, future, loop.time() + self._deadline, rows))
        self._schedule(loop)
        return future

    def too_much(self, rows: int) -> bool:
        """Return whether a request that costs so many rows is too much for a batch."""
        return self._pieces is not None and rows > self._pieces.most

    def waiting(self) -> int:
        """Return how many requests wait for a batch."""
        return len(self._waiting)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled:
            self._scheduled = True
            # Not in the very next turn, but in the one after it.
            loop.call_soon(loop.call_soon, self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._begin_large(now)
        batch = [] if self._under_way is not None and self._large_next else self._take(now)
        self._large_next = bool(batch)
        if batch:
            self.batches += 1
            self.computed += len(batch)
            self._compute_then(loop, partial(self._compute, [one for one, _ in batch]), partial(self._settle, batch))
        elif self._under_way is not None:
            self._compute_then(loop, partial(_advance, self._under_way[0]), self._settle_piece)
        else:
            self._scheduled = False

    def _take(self, now: float) -> "list[tuple[Request, asyncio.Future[Answered]]]":
        """Take the next batch: the first of the requests that wait, as many as may be computed at once."""
        batch: list[tuple[Request, asyncio.Future[Answered]]] = []
        room = math.inf if self._pieces is None else self._pieces.most
        while self._waiting and len(batch) < self._largest and self._waiting[0][3] <= room:
            asked, future, deadline, rows = self._waiting.popleft()
            if self._still_wanted(future, deadline, now):
                batch.append((asked, future))
                room -= rows
        return batch

    def _begin_large(self, now: float) -> None:
        """Begin the next large request, if one waits and none is under way; drop one that was cancelled."""
        if self._under_way is not None and self._under_way[1].cancelled():
            self._under_way[0].close()
            self._under_way = None
        while self._pieces is not None and self._large and self._under_way is None:
            asked, future, deadline, _ = self._large.popleft()
            if self._still_wanted(future, deadline, now):
                self.batches += 1
                self.computed += 1
                self._under_way = self._pieces.compute(asked), future

    def _still_wanted(self, future: "asyncio.Future[Answered]", deadline: float, now: float) -> bool:
        if future.cancelled():  # its client went away: nothing is computed for it
            return False
        if now > deadline:
            future.set_exception(Overloaded(f"waited more than {self._deadline:g} s; send it again later"))
            return False
        return True

    def _compute_then(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], Any], settle: "Callable[[asyncio.Future[Any]], None]"
    ) -> None:
        """Do the work, here or on the executor, settle its result, and go on with what waits."""

        def go_on(done: "asyncio.Future[Any]") -> None:
            settle(done)
            self._scheduled = False
            if self._waiting or self._large or self._under_way is not None:
                self._schedule(loop)

        try:
            if self._executor is not None:
                loop.run_in_executor(self._executor, work).add_done_callback(go_on)
                return
            done = loop.create_future()
            done.set_result(work())
        except Exception as error:  # of the work, or as the executor was shut down
            done = loop.create_future()
            done.set_exception(error)
        go_on(done)

    def _settle(
        self, batch: "list[tuple[Request, asyncio.Future[Answered]]]", done: "asyncio.Future[Sequence[Answered]]"
    ) -> None:
        error = _error_of(done)
        if error is not None:
            self._fail(batch, error)
        else:
            self._complete(batch, done.result())

    def _settle_piece(self, done: "asyncio.Future[list[Answered]]") -> None:
        if self._under_way is None:
            return
        future, error = self._under_way[1], _error_of(done)
        if error is None and not done.result():
            return
        self._under_way = None
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result()[0])

    @classmethod
    def _complete(cls, batch: "list[tuple[Request, asyncio.Future[Answered]]]", answers: Sequence[Answered]) -> None:
        if len(answers) != len(batch):
            cls._fail(batch, RuntimeError(f"expected {len(batch)} answers, got {len(answers)}"))
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    @staticmethod
    def _fail(batch: "list[tuple[Request, asyncio.Future[Answered]]]", error: BaseException) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)


def _advance(work: InPieces[Answered]) -> list[Answered]:
    """Do one more piece of the work; return a list of the answer once it is there, else an empty one."""
    try:
        next(work)
    except StopIteration as done:
        return [done.value]
    return []


def _error_of(done: "asyncio.Future[Any]") -> BaseException | None:
    return RuntimeError("the executor was shut down") if done.cancelled() else done.exception()
