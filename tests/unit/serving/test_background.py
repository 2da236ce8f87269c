"""Tasks in the background: what ends them, and who hears of it."""

import asyncio
import logging
from collections.abc import Coroutine

import pytest

from serving.background import Background


async def go_on() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("unexpected")


def ended(**works: Coroutine[None, None, None]) -> Background:
    """Run tasks until one fails."""

    async def run() -> Background:
        left = asyncio.Event()
        background = Background(left.set)
        with background.running(**works):
            async with asyncio.timeout(30):
                await left.wait()
        return background

    return asyncio.run(run())


def test_one_that_fails_is_logged_with_its_traceback_and_has_the_server_leave(caplog: pytest.LogCaptureFixture):
    assert ended(steady=go_on(), doomed=fail()).failed
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert "doomed" in record.getMessage()


def test_one_that_was_started_elsewhere_is_heard():
    async def run() -> bool:
        left = asyncio.Event()
        background = Background(left.set)
        background.hear(asyncio.create_task(fail()))
        async with asyncio.timeout(30):
            await left.wait()
        return background.failed

    assert asyncio.run(run())


def test_what_is_cancelled_at_the_end_has_not_failed(caplog: pytest.LogCaptureFixture):
    async def run() -> bool:
        background = Background(lambda: None)
        with background.running(steady=go_on()):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return background.failed

    assert not asyncio.run(run())
    assert not caplog.records
