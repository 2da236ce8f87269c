"""Natural batching: whatever waits when the event loop turns is computed together; nobody waits for more to come."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Batcher(Generic[Asked, Answered]):
    """Collects what is asked and answers it in batches.

    Every future completes: with its answer, or with the error that its batch raised.

    Attributes:
        batches: how many were computed so far.
        computed: how many answers they held.

    Args:
        compute: answers a batch, in order.
        largest: the most to compute at once, so that one batch cannot hold the event loop for long.
        executor: the single thread that owns the device; None computes on the event loop itself.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Asked]], Sequence[Answered]],
        largest: int,
        executor: Executor | None = None,
    ) -> None:
        self._compute = compute
        self._largest = largest
        self._executor = executor
        self._waiting: list[tuple[Asked, asyncio.Future[Answered]]] = []
        self._scheduled = False
        self.batches = 0
        self.computed = 0

    def submit(self, asked: Asked) -> "asyncio.Future[Answered]":
        """Ask for one answer; to be called on the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append((asked, future))
        self._schedule(loop)
        return future

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        # A client that went away cancelled its future: nothing is computed for it.
        batch = [one for one in self._waiting if not one[1].cancelled()]
        batch, self._waiting = batch[: self._largest], batch[self._largest :]
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
