"""What suites that fit share."""

from collections.abc import Generator

import pytest

from tests.one_thread import one_thread


@pytest.fixture(name="one_thread")
def _one_thread() -> Generator[None]:  # pyright: ignore[reportUnusedFunction]
    """Let torch use one thread during the test."""
    with one_thread():
        yield
