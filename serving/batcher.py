"""Natural batching: whatever waits is computed together, with what arrives in one more turn of the event loop.

Nobody waits for more to come. But what has arrived lies in sockets until the loop looks at them, and in a batch of its
own it would cost half as much again.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeAlias, TypeVar

from embeddings.errors import Overloaded

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

_Waiting: TypeAlias = tuple[Asked, "asyncio.Future[Answered]", float]


class Batcher(Generic[Asked, Answered]):
    """Collects what is asked and answers it in batches.

    Every future completes: with its answer, with the error that its batch raised, or with Overloaded if its turn
    came after its deadline.

    Attributes:
        batches: how many were computed so far.
        computed: how many answers they held.

    Args:
        compute: answers a batch, in order.
        largest: the most to compute at once, so that one batch cannot hold the event loop for long.
        executor: the single thread that owns the device; None computes on the event loop itself.
        deadline_seconds: how long anybody may wait for their turn.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Asked]], Sequence[Answered]],
        largest: int,
        executor: Executor | None = None,
        deadline_seconds: float = math.inf,
    ) -> None:
        self._compute = compute
        self._largest = largest
        self._deadline = deadline_seconds
        self._executor = executor
        self._waiting: deque[_Waiting[Asked, Answered]] = deque()
        self._scheduled = False
        self.batches = 0
        self.computed = 0

    def submit(self, asked: Asked) -> "asyncio.Future[Answered]":
        """Ask for one answer; to be called on the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append((asked, future, loop.time() + self._deadline))
        self._schedule(loop)
        return future

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled:
            self._scheduled = True
            # Not in the very next turn, but in the one after it.
            loop.call_soon(loop.call_soon, self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        batch: list[tuple[Asked, asyncio.Future[Answered]]] = []
        while self._waiting and len(batch) < self._largest:
            asked_one, future, deadline = self._waiting.popleft()
            if future.cancelled():  # its client went away: nothing is computed for it
                continue
            if now > deadline:
                future.set_exception(Overloaded(f"waited more than {self._deadline:g} s; send it again later"))
                continue
            batch.append((asked_one, future))
        if not batch:
            self._scheduled = False
            return
        asked = [one for one, _ in batch]
        self.batches += 1
        self.computed += len(batch)
        if self._executor is None:
            try:
                answers = self._compute(asked)
            except Exception as error:
                self._fail(batch, error)
            else:
                self._complete(batch, answers)
            self._next(loop)
        else:
            try:
                running = loop.run_in_executor(self._executor, self._compute, asked)
            except RuntimeError as error:  # the executor was shut down
                self._fail(batch, error)
                self._next(loop)
            else:
                running.add_done_callback(lambda done: self._settle(loop, batch, done))

    def _settle(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: "list[tuple[Asked, asyncio.Future[Answered]]]",
        done: "asyncio.Future[Sequence[Answered]]",
    ) -> None:
        error = RuntimeError("the executor was shut down") if done.cancelled() else done.exception()
        if error is not None:
            self._fail(batch, error)
        else:
            self._complete(batch, done.result())
        self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        if self._waiting:
            self._schedule(loop)

    @classmethod
    def _complete(cls, batch: "list[tuple[Asked, asyncio.Future[Answered]]]", answers: Sequence[Answered]) -> None:
        if len(answers) != len(batch):
            cls._fail(batch, RuntimeError(f"expected {len(batch)} answers, got {len(answers)}"))
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    @staticmethod
    def _fail(batch: "list[tuple[Asked, asyncio.Future[Answered]]]", error: BaseException) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
