import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from embeddings.errors import InvalidInput
from serving.clock import AHEAD_SECONDS, Clock

START = datetime(2025, 6, 1, tzinfo=UTC)
START_SECONDS = int(START.timestamp())


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The machine's time, standing still."""
    moment = datetime(2030, 1, 1, 12, tzinfo=UTC)
    monkeypatch.setattr(time, "time", moment.timestamp)
    return moment


def test_a_wall_clock_shows_the_machines_time_whatever_it_has_seen(noon: datetime):
    clock = Clock("wall", START_SECONDS)
    assert clock.moment(START) == START_SECONDS
    assert clock.now() == clock.moment(None) == int(noon.timestamp())


def test_a_replay_begins_at_the_cut_off_and_follows_the_newest_moment_seen():
    clock = Clock("replay", START_SECONDS)
    assert clock.now() == START_SECONDS
    for hours, expected in ((2, 2), (1, 2), (-5, 2), (3, 3)):
        at = START + timedelta(hours=hours)
        assert clock.moment(at) == int(at.timestamp())
        assert clock.moment(None) == START_SECONDS + 3_600 * expected


def test_events_move_a_replay_on_too():
    clock = Clock("replay", START_SECONDS)
    moved = START + timedelta(days=400)
    clock.check("at", moved)
    assert clock.now() == START_SECONDS, "it may yet be refused for something else"
    clock.moment(moved)
    assert clock.now() == START_SECONDS + 400 * 86_400


def test_a_moment_is_the_same_in_every_zone():
    there = START.astimezone(timezone(timedelta(hours=-11)))
    assert Clock("wall", 0).moment(there) == START_SECONDS


def test_an_event_may_lie_a_day_ahead_of_the_machine_but_not_more(noon: datetime):
    clock = Clock("wall", START_SECONDS)
    limit = noon + timedelta(seconds=AHEAD_SECONDS)
    clock.check("at", limit)
    with pytest.raises(InvalidInput, match="a day ahead") as caught:
        clock.check("events[3].at", limit + timedelta(seconds=1))
    assert caught.value.field == "events[3].at"


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_no_event_happens_where_calendars_end(at: str):
    clock = Clock("replay", START_SECONDS)
    with pytest.raises(InvalidInput, match="years 2 to 9998"):
        clock.check("at", datetime.fromisoformat(at))
    assert clock.now() == START_SECONDS
