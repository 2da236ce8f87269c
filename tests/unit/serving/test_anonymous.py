"""Answers to nobody: worked out once for the same question within an hour, and for every other one anew."""

import asyncio
import gc
from typing import Any, cast

import numpy as np
import pytest

from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import EVENT, History
from embeddings.customer.tower_input import Situation
from serving.anonymous import AnonymousCache
from serving.ranked import Ranked
from serving.retrieve import Offered, RankRequest
from serving.view import View

HOUR = 3_600
NOW = 500_000 * HOUR


def rows(*some: int) -> EligibleSet:
    return EligibleSet.of(np.array(some, np.int32), FOREVER)


class Named:
    """As much of a model as is looked at: that it is itself, and there."""


def model() -> View:
    return cast("View", Named())


NOBODY = History(np.zeros(0, EVENT), np.zeros(0, np.int32), ())
ASK = RankRequest(model(), NOBODY, Situation(0, 3, NOW + 60), Place((3,)), rows(1, 2), None, 10)


class Worker:
    """Works answers out, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[RankRequest] = []

    async def __call__(self, ask: RankRequest) -> list[Ranked]:
        self.asked.append(ask)
        return [Ranked("product", len(self.asked), 0.5, "trending")]


def answers(*asks: RankRequest) -> tuple[list[list[Ranked]], Worker]:
    async def run() -> tuple[list[list[Ranked]], Worker]:
        strangers, worker = AnonymousCache[list[Ranked]](), Worker()
        return [await strangers.of(one, worker) for one in asks], worker

    return asyncio.run(run())


def test_the_same_question_within_an_hour_is_worked_out_once_as_of_its_beginning() -> None:
    later = ASK._replace(situation=Situation(0, 3, NOW + HOUR - 1), products=rows(1, 2))
    (first, second), worker = answers(ASK, later)
    assert first is second
    assert [one.situation.moment for one in worker.asked] == [NOW]


@pytest.mark.parametrize(
    "change",
    [
        {"situation": Situation(0, 3, NOW + HOUR)},
        {"situation": Situation(1, 3, NOW)},
        {"products": rows(1, 3)},
        {"offers": Offered(rows(1, 2), np.zeros(3, np.float32)), "products": None},
        {"limit": 11},
        {"products": rows(1, 2, 3).among(np.array([1, 2]))},
        {"excluded": frozenset({("product", 1)})},
        {"place": Place((3, 4))},
        {"explain": True},
        {"novel": True},
        {"rank_all": True},
        {"view": model()},
    ],
    ids="-".join,
)
def test_any_other_question_is_worked_out_anew(change: dict[str, Any]) -> None:
    found, worker = answers(ASK, ASK._replace(**change), ASK)
    assert len(worker.asked) == 2
    assert found[0] is found[2] is not found[1]


@pytest.mark.parametrize(
    "change",
    [
        {"products": EligibleSet.derived(rows(1, 2), np.array([2]))},
        {"products": rows(1, 2).among(np.array([2]))},
        {"excluded": frozenset({("product", 1)})},
        {"rank_all": True},
    ],
    ids="-".join,
)
def test_nothing_is_remembered_of_what_one_request_asks_for_itself(change: dict[str, Any]) -> None:
    (first, own, again, last), worker = answers(ASK, ASK._replace(**change), ASK._replace(**change), ASK)
    assert own is not again
    assert first is last
    assert [one.situation.moment for one in worker.asked] == [NOW] * 3


def test_only_so_many_are_remembered_the_latest_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.anonymous.REMEMBERED_BYTES", 3_200)
    one, two, three = (ASK._replace(limit=limit) for limit in (1, 2, 3))
    _, worker = answers(one, two, one, three, one, two)
    assert [asked.limit for asked in worker.asked] == [1, 2, 3, 2]


def test_what_is_remembered_of_a_model_goes_with_it_even_if_it_is_answered_late() -> None:
    async def run() -> None:
        strangers, worker = AnonymousCache(), Worker()
        old, new = ASK._replace(view=model()), ASK._replace(view=model())
        held = asyncio.Event()

        async def late(ask: RankRequest) -> list[Ranked]:
            await held.wait()
            return await worker(ask)

        waiting = asyncio.create_task(strangers.of(old, late))
        await asyncio.sleep(0)
        first = await strangers.of(new, worker)
        held.set()
        assert await waiting is not first
        assert await strangers.of(new, worker) is first
        kept = strangers._remembered  # pyright: ignore[reportPrivateUsage]
        assert len(kept) == 2
        worker.asked.clear()
        del old, waiting
        gc.collect()
        assert len(kept) == 1

    asyncio.run(run())
