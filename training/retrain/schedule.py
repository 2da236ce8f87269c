"""Schedules in the words of cron, in UTC."""

from collections.abc import Iterator
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from embeddings.errors import InvalidInput


class Schedule:
    """The moments at which a run is due.

    Args:
        text: five fields as cron has them: minute, hour, day of the month, month, day of the week; in UTC.

    Raises:
        InvalidInput: cron has no such schedule, or it never comes.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            self.after(datetime.now(UTC))
        except (CronSimError, StopIteration) as error:
            problem = str(error) or "no such moment comes in fifty years"
            raise InvalidInput(
                "--schedule", f"expected five fields as cron has them, such as '30 3 * * *'; got {text!r}: {problem}"
            ) from None

    def after(self, moment: datetime) -> datetime:
        """Return the first moment after one, which has a time zone."""
        moments: Iterator[datetime] = CronSim(self._text, moment.astimezone(UTC))
        return next(moments)
