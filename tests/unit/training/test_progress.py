"""What a run tells of its progress."""

import logging
import os
import threading
from collections.abc import Generator

import msgspec
import pytest

from training.progress import Line, tell, tell_end, tell_published, tell_to


@pytest.fixture
def pipe() -> Generator[tuple[int, int, threading.Event]]:
    reading, writing = os.pipe()
    gone = threading.Event()
    tell_to(writing, gone.set)
    yield reading, writing, gone
    logging.getLogger("opportune.progress").handlers.clear()


def lines(reading: int) -> list[Line]:
    """All lines to the last one."""
    told: list[Line] = []
    with os.fdopen(reading, "rb") as pipe:
        while not told or not told[-1].said:
            told.append(msgspec.json.decode(pipe.readline(), type=Line))
    return told


def test_stages_and_the_end_are_told_and_not_every_step(pipe: tuple[int, int, threading.Event]):
    tell("reading")
    for step in range(1, 10_001):
        tell("towers", step, 10_000)
    tell_published("v1")
    tell_end("published v1")
    told = lines(pipe[0])
    assert told[0] == Line("reading", 0, 1)
    assert told[1] == Line("towers", 1, 10_000)
    assert told[-3:] == [
        Line("towers", 10_000, 10_000),
        Line("published", 1, 1, release="v1"),
        Line("ended", 1, 1, said="published v1"),
    ]
    assert len(told) < 100


def test_it_is_told_once_nobody_reads(pipe: tuple[int, int, threading.Event]):
    reading, _, gone = pipe
    assert not gone.is_set()
    os.close(reading)
    assert gone.wait(30)
    tell("reading")


def test_what_is_no_descriptor_is_refused():
    with pytest.raises(OSError, match="Bad file descriptor"):
        tell_to(10_000, lambda: None)
