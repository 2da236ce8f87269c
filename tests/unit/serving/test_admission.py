"""Admission on a loop of its own, in front of something that computes what has begun, by a clock moved by hand."""

import asyncio

from serving.admission import Admission

PATIENCE_SECONDS = 30


class Computer:
    """Computes what has begun, in the order in which it begins; each takes ``seconds`` of its own clock."""

    def __init__(self, seconds: float, batch: int = 16) -> None:
        self.seconds, self.batch = seconds, batch
        self.waiting: list[int] = []
        self.done: list[int] = []
        self.turned_away: list[int] = []
        self.most = 0
        self.clock_seconds = 0.0

    def ask(self, admission: Admission, number: int) -> bool:
        """Whether a number was not turned away at once; it is done some time, or turned away later."""
        before = len(self.turned_away)
        admission.enter(lambda: self.waiting.append(number), lambda: self.turned_away.append(number))
        return len(self.turned_away) == before

    def now(self) -> float:
        return self.clock_seconds

    def computing(self) -> int:
        return len(self.waiting)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.most = max(self.most, len(self.waiting))
            batch, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
            self.clock_seconds += self.seconds * len(batch)
            self.done += batch


async def settled(computer: Computer, count: int) -> None:
    """Let what was let in be computed."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(computer.done) < count:  # noqa: ASYNC110 - there is nothing that could tell
            await asyncio.sleep(0.001)


def test_all_that_comes_at_once_after_a_pause_is_let_in_and_begins_in_order():
    async def scenario() -> None:
        computer = Computer(0.0)
        admission = Admission(0.1, computer.computing, computer.now)
        working = asyncio.create_task(computer.run())
        for number in range(150):
            assert computer.ask(admission, number)
        await settled(computer, 150)
        assert computer.done == list(range(150))
        assert computer.most < 64
        working.cancel()

    asyncio.run(scenario())


def test_one_more_than_can_have_their_turn_in_time_is_refused_and_never_begins():
    async def scenario() -> None:
        computer = Computer(0.0)
        admission = Admission(0.1, computer.computing, computer.now)
        let_in = [number for number in range(1_000) if computer.ask(admission, number)]
        assert 150 < len(let_in) < 300
        assert let_in == list(range(len(let_in)))
        working = asyncio.create_task(computer.run())
        await settled(computer, len(let_in))
        assert computer.done == let_in
        assert computer.ask(admission, 0), "there is room again"
        working.cancel()

    asyncio.run(scenario())


def test_the_more_a_request_costs_the_fewer_wait():
    async def scenario() -> None:
        computer = Computer(0.002)
        admission = Admission(0.1, computer.computing, computer.now)
        working = asyncio.create_task(computer.run())
        asked = 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(computer.done) < 400:
                asked += computer.ask(admission, asked)
                await asyncio.sleep(0)
        queued = asked - len(computer.done) - len(computer.waiting) - len(computer.turned_away)
        assert queued < 100, "at 2 ms each 50 may wait for 0.1 s; 200 if they cost what is usual"
        working.cancel()

    asyncio.run(scenario())


def test_whoever_has_waited_too_long_is_turned_away_when_the_turn_comes():
    async def scenario() -> None:
        computer = Computer(0.0)
        admission = Admission(0.01, computer.computing, computer.now)
        asked = [number for number in range(36) if computer.ask(admission, number)]
        assert len(asked) > 20
        computer.clock_seconds += 0.02  # as a process that is stopped
        working = asyncio.create_task(computer.run())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(computer.done) + len(computer.turned_away) < 36:  # noqa: ASYNC110 - nothing could tell
                await asyncio.sleep(0)
        assert computer.done == list(range(16))
        working.cancel()

    asyncio.run(scenario())


def test_nothing_begins_while_enough_waits_to_be_computed():
    async def scenario() -> None:
        computer = Computer(0.0)
        admission = Admission(10.0, computer.computing, computer.now)
        for number in range(500):
            assert computer.ask(admission, number)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(computer.waiting) < 64
        working = asyncio.create_task(computer.run())
        await settled(computer, 500)
        assert computer.done == list(range(500))
        working.cancel()

    asyncio.run(scenario())
