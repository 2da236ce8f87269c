"""A decision, what one answer showed to whom: its id, what is kept of it until it is stored, and as it is stored."""

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import NamedTuple

import msgspec

from embeddings.catalogue.context import GeoPoint

_EPOCH, _MS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_FIRST, _LAST = (datetime(year, 1, 1, tzinfo=UTC) for year in (2, 9999))
_RANDOM_BYTES, _IDS_AT_ONCE = 9, 256
_ID = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}8[0-9a-f]{15}")

SAMPLED = 0.1
"""Of how many decisions one is stored where they are sampled, as a share."""
_DRAWN = int(SAMPLED * 2**32)


class Decision(NamedTuple):
    """What one answer showed, and to whom.

    Attributes:
        recommendation_id: says when that was, too.
        asked_at: the moment that was asked about, in seconds since 1970 UTC; stored as the nearest in the years 2 to
            9998, as neither Python nor JSON can say others.
        customer_id: None of somebody anonymous.
        location, placement: those of the request.
        attributes: of the request's situation, as far as the release knows their values.
        items, kinds, scores, sources: of each item, the best first.
        propensities: with which probability each was shown at its place; None where nothing was left to chance.
    """

    recommendation_id: str
    asked_at: int
    customer_id: str | None
    channel: str
    location: str | GeoPoint | None
    placement: str | None
    attributes: Mapping[str, str]
    version: str
    seq: int
    personalised: bool
    degraded: bool
    items: list[str]
    kinds: list[str]
    scores: list[float]
    sources: list[str]
    propensities: list[float] | None

    def values(self, share: float) -> tuple[object, ...]:
        """Return the values to be stored, in the order of the type ``decision`` in PostgreSQL.

        Args:
            share: of how many decisions of its kind one is stored.
        """
        place = self.location if isinstance(self.location, GeoPoint) else None
        return (
            self.recommendation_id,
            moment_of(self.recommendation_id),
            datetime.fromtimestamp(min(max(self.asked_at, _FIRST.timestamp()), _LAST.timestamp()), UTC),
            self.customer_id,
            self.channel,
            None if place is not None else self.location,
            None if place is None else [place.latitude, place.longitude, place.radius_km],
            self.placement,
            msgspec.json.encode(self.attributes).decode() if self.attributes else None,
            self.version,
            self.seq,
            self.personalised,
            self.degraded,
            share,
            self.items,
            self.kinds,
            self.scores,
            self.sources,
            self.propensities,
        )


def new_ids() -> Iterator[str]:
    """Yield ids: UUIDs of version 7 in hexadecimal, which begin with the milliseconds since 1970.

    It asks the system for many random bytes at a time, as each call costs, and not before the first are needed: a
    worker that was forked before that shares none with others.
    """
    while True:
        many = token_hex(_RANDOM_BYTES * _IDS_AT_ONCE)
        for start in range(0, len(many), 2 * _RANDOM_BYTES):
            drawn = many[start : start + 2 * _RANDOM_BYTES]
            yield f"{time.time_ns() // 1_000_000:012x}7{drawn[:3]}8{drawn[3:]}"


def moment_of(recommendation_id: str) -> datetime | None:
    """Return the moment of an id, to the millisecond; None if it is none of ours."""
    if _ID.fullmatch(recommendation_id) is None:
        return None
    try:
        return _EPOCH + int(recommendation_id[:12], 16) * _MS
    except OverflowError:  # beyond the year 9999
        return None


def is_drawn(recommendation_id: str) -> bool:
    """Return whether a decision is one of those that a sample holds: its id alone settles that."""
    return int(recommendation_id[-8:], 16) < _DRAWN
