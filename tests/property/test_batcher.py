"""Whatever is asked in whatever order, everybody is answered, and nobody waits for more than may come before."""

import asyncio
from collections.abc import Generator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batcher import Batcher, Pieces

MOST = 20
LARGEST = 4


class Work:
    """Numbers are asked; each costs as many rows, of which 10 are done in a piece. Everything done is remembered."""

    def __init__(self) -> None:
        self.log: list[list[int] | int] = []

    def batch(self, asked: Sequence[int]) -> list[int]:
        self.log.append(list(asked))
        return [-one for one in asked]

    def pieces(self, asked: int) -> Generator[None, None, int]:
        for start in range(0, asked, 10):
            if start:
                yield
            self.log.append(asked)
        return -asked


def cost(asked: int) -> int:
    return asked


def batcher(work: Work) -> Batcher[int, int]:
    return Batcher(work.batch, LARGEST, pieces=Pieces(cost, MOST, work.pieces))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 3)), max_size=40))
def test_everybody_is_answered_and_large_and_small_have_their_turns(asked: list[tuple[int, int]]):
    work = Work()

    async def ask() -> list[int]:
        answering = batcher(work)
        futures: list[asyncio.Future[int]] = []
        for cost, turns in asked:
            for _ in range(turns):
                await asyncio.sleep(0)
            futures.append(answering.submit(cost))
        async with asyncio.timeout(30):
            return await asyncio.gather(*futures)

    assert asyncio.run(ask()) == [-cost for cost, _ in asked]
    batches = [one for one in work.log if isinstance(one, list)]
    assert [one for batch in batches for one in batch] == [cost for cost, _ in asked if cost <= MOST]
    assert all(len(batch) <= LARGEST and sum(batch) <= MOST for batch in batches)
    pieces = [one for one in work.log if isinstance(one, int)]
    assert pieces == [cost for cost, _ in asked if cost > MOST for _ in range(0, cost, 10)]


@settings(deadline=None)
@given(st.lists(st.integers(1, MOST), min_size=1, max_size=30), st.lists(st.integers(MOST + 1, 100), min_size=1))
def test_while_both_wait_batches_and_pieces_take_turns(small: list[int], large: list[int]):
    work = Work()

    async def ask() -> None:
        answering = batcher(work)
        async with asyncio.timeout(30):
            await asyncio.gather(*(answering.submit(one) for one in [*large, *small]))

    asyncio.run(ask())
    kinds = [isinstance(one, list) for one in work.log]
    batches = kinds.count(True)
    both = min(batches, len(kinds) - batches)
    assert kinds[: 2 * both] == [True, False] * both


def test_a_large_one_whose_client_left_is_given_up():
    work = Work()

    async def ask() -> None:
        answering = batcher(work)
        gone, stays = answering.submit(1_000), answering.submit(30)
        async with asyncio.timeout(30):
            while not work.log:  # noqa: ASYNC110 - there is nothing that could tell
                await asyncio.sleep(0)
            gone.cancel()
            assert await stays == -30

    asyncio.run(ask())
    assert work.log.count(1_000) < 5


def test_a_piece_that_fails_fails_its_request_alone():
    def broken(asked: int) -> Generator[None, None, int]:
        yield
        raise ValueError(asked)

    async def ask() -> list[int | BaseException]:
        work = Work()
        answering = Batcher[int, int](work.batch, LARGEST, pieces=Pieces(cost, MOST, broken))
        async with asyncio.timeout(30):
            return await asyncio.gather(*(answering.submit(one) for one in (50, 3, 60)), return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert isinstance(first, ValueError)
    assert second == -3
    assert isinstance(third, ValueError)
