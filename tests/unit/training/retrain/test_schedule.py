"""Schedules in the words of cron."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from embeddings.errors import InvalidInput
from training.retrain.schedule import Schedule

MOMENT = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)  # a Sunday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 3 * * *", MOMENT + timedelta(days=1)),
        ("31 3 * * *", MOMENT + timedelta(minutes=1)),
        ("0 */6 * * *", MOMENT.replace(hour=6, minute=0)),
        ("0 0 * * MON", datetime(2026, 3, 2, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_the_next_moment_lies_after_this_one(text: str, expected: datetime):
    assert Schedule(text).after(MOMENT) == expected


def test_moments_are_those_of_utc_wherever_one_is():
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=9)))
    assert Schedule("0 4 * * *").after(elsewhere) == MOMENT.replace(hour=4, minute=0)


@pytest.mark.parametrize("text", ["", "61 * * * *", "daily", "* * * *", "0 0 30 2 *"])
def test_what_cron_has_no_such_moment_for_is_refused(text: str):
    with pytest.raises(InvalidInput, match="--schedule: expected five fields"):
        Schedule(text)
