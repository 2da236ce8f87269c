"""Whatever is asked for: what comes back is allowed, and as much as was asked for, by an oracle on the tables."""

from datetime import datetime, timedelta
from typing import Any

import haversine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.server import Server, eligible_offers, eligible_products, world
from tests.world import UNTIL

PLACED = {one["location"]: (one["latitude"], one["longitude"]) for one in world()["locations"]}
PRODUCTS = [one["product_id"] for one in world()["products"]]
OFFERS = [one["offer_id"] for one in world()["offers"]]

channels = st.sampled_from(["web", "app", "email", "push", "sms", "call-centre", "store", "mailer"])


def point(latitude: float, longitude: float, radius_km: float) -> dict[str, float]:
    return {"latitude": latitude, "longitude": longitude, "radius_km": radius_km}


points = st.builds(point, st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 20_038, exclude_min=True))
near_points = st.sampled_from([place for place in PLACED.values() if place[0] is not None]).flatmap(
    lambda place: st.builds(point, st.floats(place[0] - 0.9, place[0]), st.just(place[1]), st.floats(1, 300))
)
moments = st.datetimes(datetime(2025, 5, 1), datetime(2026, 7, 1)) | st.sampled_from(  # noqa: DTZ001
    [(UNTIL + timedelta(days=days, seconds=off)).replace(tzinfo=None) for days in (-9, 0, 7, 14, 30) for off in (-1, 0)]
)
customers = st.none() | st.sampled_from([f"c{number:03d}" for number in range(120)]) | st.text(min_size=1, max_size=200)


def inside(location: Any) -> list[str] | None:
    """The locations that a request means; None for any."""
    if location is None or isinstance(location, str):
        return None if location is None else [location]
    middle = (location["latitude"], location["longitude"])
    return [
        name
        for name, place in PLACED.items()
        if place[0] is not None and haversine.haversine(middle, place) <= location["radius_km"]
    ]


@given(
    customer=customers.filter(lambda one: one is None or ("\0" not in one and one.isprintable())),
    channel=channels,
    location=st.none() | st.sampled_from(sorted(PLACED)) | points | near_points,
    moment=moments,
    kinds=st.sampled_from([["product"], ["offer"], ["product", "offer"], ["offer", "product"]]),
    limit=st.integers(1, 100),
    exclude=st.lists(st.sampled_from([*PRODUCTS, *OFFERS, "unheard-of"]), max_size=150),
)
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_answer_is_eligible_unique_sorted_and_as_long_as_it_can_be(
    reader: Server,
    customer: str | None,
    channel: str,
    location: Any,
    moment: datetime,
    kinds: list[str],
    limit: int,
    exclude: list[str],
):
    at = moment.replace(tzinfo=UNTIL.tzinfo)
    answer = reader.recommend(customer, channel, location, at=at, kinds=kinds, limit=limit, exclude=exclude)

    places, second = inside(location), at.replace(microsecond=0)
    allowed: set[tuple[str, str]] = set()
    if "product" in kinds:
        allowed |= {("product", one) for one in eligible_products(channel, places, second)}
    if "offer" in kinds:
        allowed |= {("offer", one) for one in eligible_offers(channel, places, second, customer)}
    allowed = {one for one in allowed if one[1] not in exclude}

    shown = [(item["kind"], item["id"]) for item in answer["items"]]
    assert set(shown) <= allowed
    assert len(set(shown)) == len(shown) == min(limit, len(allowed))
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert [item["rank"] for item in answer["items"]] == list(range(1, len(shown) + 1))
    assert all(0 <= score <= 1 for score in scores)
    assert not answer["degraded"]
