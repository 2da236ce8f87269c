import asyncio
import gc
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from embeddings.errors import Overloaded
from serving.batcher import Batcher


class Doubler:
    """Doubles numbers and remembers its batches; a negative number makes it raise."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.batches.append(list(asked))
        if min(asked) < 0:
            raise ValueError(f"cannot double {min(asked)}")
        return [2 * one for one in asked]


@pytest.fixture(params=["event loop", "executor"])
def executor(request: pytest.FixtureRequest):
    """None, and the single thread that owns a device: all must hold on both."""
    if request.param == "event loop":
        yield None
    else:
        with ThreadPoolExecutor(1) as one_thread:
            yield one_thread


def test_everything_that_waits_is_computed_in_one_batch_in_order(executor: ThreadPoolExecutor | None):
    compute = Doubler()

    async def ask() -> list[int]:
        batcher = Batcher[int, int](compute, 32, executor)
        answers = await asyncio.gather(*(batcher.submit(one) for one in (3, 1, 2)))
        assert (batcher.batches, batcher.computed) == (1, 3)
        return answers

    assert asyncio.run(ask()) == [6, 2, 4]
    assert compute.batches == [[3, 1, 2]]


def test_no_batch_is_larger_than_the_largest(executor: ThreadPoolExecutor | None):
    compute = Doubler()

    async def ask() -> list[int]:
        batcher = Batcher[int, int](compute, 3, executor)
        return await asyncio.gather(*(batcher.submit(one) for one in range(7)))

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8, 10, 12]
    assert compute.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_error_fails_exactly_its_batch_and_the_next_one_works(executor: ThreadPoolExecutor | None):
    async def ask() -> list[int | BaseException]:
        batcher = Batcher[int, int](Doubler(), 2, executor)
        return await asyncio.gather(*(batcher.submit(one) for one in (1, 2, 3, -4, 5)), return_exceptions=True)

    first, second, third, fourth, fifth = asyncio.run(ask())
    assert (first, second, fifth) == (2, 4, 10)
    assert isinstance(third, ValueError)
    assert isinstance(fourth, ValueError)


@pytest.mark.parametrize("answers", [[], [1], [1, 2, 3]])
def test_a_wrong_number_of_answers_fails_the_batch_instead_of_hanging(
    executor: ThreadPoolExecutor | None, answers: list[int]
):
    rounds = iter([answers, [7]])

    def compute(_: Sequence[int]) -> list[int]:
        return next(rounds)

    async def ask() -> None:
        batcher = Batcher[int, int](compute, 2, executor)
        async with asyncio.timeout(30):
            wrong = await asyncio.gather(batcher.submit(0), batcher.submit(0), return_exceptions=True)
            assert [str(one) for one in wrong] == [f"expected 2 answers, got {len(answers)}"] * 2
            assert await batcher.submit(0) == 7

    asyncio.run(ask())


def test_nothing_is_computed_for_those_who_left(executor: ThreadPoolExecutor | None):
    compute = Doubler()

    async def ask() -> int:
        batcher = Batcher[int, int](compute, 2, executor)
        gone, stays = batcher.submit(1), batcher.submit(2)
        gone.cancel()
        answer = await stays
        batcher.submit(3).cancel()
        await asyncio.sleep(0)
        assert await batcher.submit(4) == 8
        return answer

    assert asyncio.run(ask()) == 4
    assert compute.batches == [[2], [4]]


def test_somebody_who_leaves_while_being_computed_spoils_nothing():
    started, go_on = threading.Event(), threading.Event()

    def compute(asked: Sequence[int]) -> list[int]:
        started.set()
        assert go_on.wait(30)
        return list(asked)

    async def ask() -> int:
        with ThreadPoolExecutor(1) as one_thread:
            batcher = Batcher[int, int](compute, 2, one_thread)
            gone, stays = batcher.submit(1), batcher.submit(2)
            await asyncio.to_thread(started.wait, 30)
            gone.cancel()
            go_on.set()
            return await stays

    assert asyncio.run(ask()) == 2


def test_whoever_comes_while_the_device_is_busy_shares_the_next_batch():
    started, go_on = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def compute(asked: Sequence[int]) -> list[int]:
        batches.append(list(asked))
        started.set()
        assert go_on.wait(30)
        return list(asked)

    async def ask() -> list[int]:
        with ThreadPoolExecutor(1) as one_thread:
            batcher = Batcher[int, int](compute, 32, one_thread)
            first = batcher.submit(0)
            await asyncio.to_thread(started.wait, 30)
            others = [batcher.submit(one) for one in (1, 2, 3)]
            await asyncio.sleep(0)
            go_on.set()
            return await asyncio.gather(first, *others)

    assert asyncio.run(ask()) == [0, 1, 2, 3]
    assert batches == [[0], [1, 2, 3]]


def test_an_executor_that_was_shut_down_fails_the_future():
    async def ask() -> None:
        one_thread = ThreadPoolExecutor(1)
        one_thread.shutdown()
        async with asyncio.timeout(30):
            with pytest.raises(RuntimeError, match="shutdown"):
                await Batcher[int, int](Doubler(), 2, one_thread).submit(1)

    asyncio.run(ask())


def test_what_comes_in_the_turn_after_the_first_is_in_its_batch():
    compute = Doubler()

    async def ask() -> list[int]:
        batcher = Batcher[int, int](compute, 5)
        first = batcher.submit(1)
        await asyncio.sleep(0)
        return [await one for one in (first, batcher.submit(2))]

    assert asyncio.run(ask()) == [2, 4]
    assert compute.batches == [[1, 2]]


def test_what_is_cancelled_in_the_queue_of_an_executor_fails_its_futures():
    started, go_on = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        go_on.wait(30)

    async def ask() -> None:
        one_thread = ThreadPoolExecutor(1)
        one_thread.submit(block)
        await asyncio.to_thread(started.wait, 30)
        future = Batcher[int, int](Doubler(), 2, one_thread).submit(1)
        for _ in range(2):  # until it lies in the executor's queue
            await asyncio.sleep(0)
        one_thread.shutdown(wait=False, cancel_futures=True)
        go_on.set()
        async with asyncio.timeout(30):
            with pytest.raises(RuntimeError, match="shut down"):
                await future
        gc.collect()

    asyncio.run(ask())


def test_whose_turn_comes_after_the_deadline_is_refused_and_not_computed(executor: ThreadPoolExecutor | None):
    compute = Doubler()

    async def ask() -> list[int | BaseException]:
        batcher = Batcher[int, int](compute, 2, executor, deadline_seconds=-1)
        asking = [asyncio.ensure_future(batcher.submit(one)) for one in range(4)]
        return await asyncio.gather(*asking, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(ask())] == [Overloaded] * 4
    assert compute.batches == []


def test_within_the_deadline_everybody_is_answered(executor: ThreadPoolExecutor | None):
    async def ask() -> list[int]:
        batcher = Batcher[int, int](Doubler(), 2, executor, deadline_seconds=3600)
        return await asyncio.gather(*(batcher.submit(one) for one in range(5)))

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8]
