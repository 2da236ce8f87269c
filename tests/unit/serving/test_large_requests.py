"""Requests that name more products than a batch may hold, more of them at once than are worked on."""

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import pytest

from embeddings.catalogue.context import Context
from embeddings.errors import Overloaded, UnknownReference
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving import engine
from serving.batcher import Batcher, Pieces
from serving.clock import Clock
from serving.engine import Engine
from serving.opening import open_view
from serving.pipeline import answer_batch, answer_in_pieces
from serving.ranked import Ranked
from serving.recommendation import Recommendation, RecommendRequest
from serving.retrieve import RankRequest
from serving.settings import Settings
from serving.slot import ViewSlot
from serving.state.decisions import DecisionStore
from serving.state.events import EventStore
from serving.view import View
from tests.world import UNTIL

MOST, LARGE = 30, tuple(f"p{number:03d}" for number in range(31))
WORKED_ON = 8


@pytest.fixture(scope="module")
def model(published: tuple[BundleStore, Manifest]) -> View:
    bundles, manifest = published
    root: Path = bundles.bundle(manifest.version).parents[1]
    return open_view(Settings(store=root), manifest.version, cast("EventStore", None))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Every list of ids that was looked up."""
    found: list[Sequence[str]] = []
    rows: Any = engine._rows  # pyright: ignore[reportPrivateUsage]

    async def noted(ids: Sequence[str], model: View) -> Any:
        found.append(ids)
        return await rows(ids, model)

    monkeypatch.setattr(engine, "_rows", noted)
    return found


def engine_of(model: View) -> Engine:
    pieces = Pieces[RankRequest, list[Ranked]](attrgetter("rows"), MOST, answer_in_pieces)
    batcher: Batcher[RankRequest, list[Ranked]] = Batcher(answer_batch, 16, pieces=pieces)
    return Engine(
        ViewSlot(model),
        batcher,
        Clock("replay", int(UNTIL.timestamp())),
        lambda: False,
        DecisionStore("", "none", cast("EventStore", None)),
    )


def request(items: tuple[str, ...], channel: str = "web") -> RecommendRequest:
    return RecommendRequest(context=Context(channel), items=items)


async def asked(engine: Engine, *requests: RecommendRequest) -> list[Recommendation | BaseException]:
    return await asyncio.gather(*(engine.recommend(one) for one in requests), return_exceptions=True)


def test_large_requests_beyond_those_worked_on_are_refused_before_their_ids_are_looked_up(
    model: View, looked_up: list[Sequence[str]]
):
    async def ask() -> None:
        engine = engine_of(model)
        for _ in range(2):  # there is room again
            looked_up.clear()
            answers = await asked(engine, *[request(LARGE)] * 50)
            assert [type(one) for one in answers] == [Recommendation] * WORKED_ON + [Overloaded] * (50 - WORKED_ON)
            assert len(looked_up) == WORKED_ON

    asyncio.run(ask())


def test_beside_as_many_large_ones_as_may_be_small_ones_are_answered(model: View):
    async def ask() -> None:
        answers = await asked(engine_of(model), *[request(LARGE)] * WORKED_ON, *[request(LARGE[:MOST])] * 50)
        assert all(isinstance(one, Recommendation) for one in answers)

    asyncio.run(ask())


def test_a_large_request_that_fails_makes_room(model: View):
    async def ask() -> None:
        engine = engine_of(model)
        for _ in range(3):
            answers = await asked(engine, *[request(LARGE, "pigeon")] * WORKED_ON)
            assert [type(one) for one in answers] == [UnknownReference] * WORKED_ON
        assert isinstance((await asked(engine, request(LARGE)))[0], Recommendation)

    asyncio.run(ask())
