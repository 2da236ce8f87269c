"""How many connections there is room for, under every limit of open files."""

import logging
import resource

import pytest

from serving.workers import room_for


@pytest.mark.parametrize(
    ("soft", "hard", "room", "raised"),
    [
        (256, resource.RLIM_INFINITY, 1_000, 1_128),
        (256, 4_096, 1_000, 1_128),
        (256, 1_128, 1_000, 1_128),
        (256, 1_127, 999, 1_127),
        (256, 512, 384, 512),
        (64, 64, 32, 64),
        (4_096, 4_096, 1_000, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1_000, None),
    ],
)
def test_the_limit_is_raised_and_fewer_connections_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    room: int,
    raised: int | None,
):
    limits: list[tuple[int, int]] = []

    def getrlimit(_: int) -> tuple[int, int]:
        return soft, hard

    def setrlimit(_: int, both: tuple[int, int]) -> None:
        limits.append(both)

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    with caplog.at_level(logging.WARNING, "opportune.serve"):
        assert room_for(1_000) == room
    assert limits == ([] if raised is None else [(raised, hard)])
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == (room < 1_000)
    assert all(f" {room}," in one and " 1000," in one for one in warned)
