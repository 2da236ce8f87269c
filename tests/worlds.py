"""Small worlds of other trades, each with a rhythm of its own: what customers take next is known only by chance.

Every world has events of 16 weeks before ``UNTIL`` and of two weeks after it; the latter are what is asked about.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from tests.world import UNTIL

WEEKS, AFTER = 16, 2
Tables = Mapping[str, pl.DataFrame]

_EVENTS = {"customer_id": pl.String, "type": pl.String, "at": pl.Datetime("us", "UTC"), "product_id": pl.String}
_PLACED = _EVENTS | {"location": pl.String, "channel": pl.String}


def _moments(random: np.random.Generator, a_week: float) -> list[datetime]:
    """Moments of visits of one customer, so many a week on average, in the daytime."""
    days = np.flatnonzero(random.random(7 * (WEEKS + AFTER)) < a_week / 7)
    return [
        UNTIL - timedelta(weeks=WEEKS) + timedelta(days=int(day), seconds=int(random.integers(8 * 3_600, 20 * 3_600)))
        for day in days
    ]


def _chances(random: np.random.Generator, count: int, sharp: float) -> Any:
    return random.dirichlet(np.full(count, sharp))


def _locations(points: Mapping[str, tuple[float, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "location": list(points),
            "latitude": [latitude for latitude, _ in points.values()],
            "longitude": [longitude for _, longitude in points.values()],
        }
    )


def _near(random: np.random.Generator, centre: tuple[float, float], degrees: float) -> tuple[float, float]:
    latitude, longitude = random.normal(centre, degrees)
    return round(float(latitude), 5), round(float(longitude), 5)


_CITIES = [(52.5, 13.4), (48.1, 11.6), (53.6, 10.0), (50.1, 8.7)]


def bank() -> Tables:
    """Card payments: brands with branches in every city; customers have favourites of the month, where they live.

    Some brands are paid in the morning, others in the evening.
    """
    random = np.random.default_rng(1)
    brands = [f"b{number:02d}" for number in range(80)]
    points, carried = {}, {}
    for brand in brands:
        for city in range(len(_CITIES)):
            if random.random() < 0.6:
                name = f"{brand}-{city}"
                points[name] = _near(random, _CITIES[city], 0.02)
                carried.setdefault(brand, []).append(name)
    rows = []
    for customer in range(400):
        city = customer % len(_CITIES)
        here = [brand for brand in brands if f"{brand}-{city}" in points]
        months = [_chances(random, len(here), 0.08) for _ in range(6)]
        early = np.array([int(brand[1:]) % 2 for brand in here])
        for at in _moments(random, 4):
            month = (at - UNTIL + timedelta(weeks=WEEKS)).days // 28
            chances = (months[month] + months[max(month - 1, 0)]) * np.where(early == (at.hour < 14), 1, 0.1)
            brand = str(random.choice(here, p=chances / chances.sum()))
            rows.append((f"c{customer:03d}", "purchase", at, brand, f"{brand}-{city}", "store"))
    products = pl.DataFrame(
        {
            "product_id": list(carried),
            "locations": list(carried.values()),
            "type": [f"t{int(brand[1:]) % 12}" for brand in carried],
        }
    )
    return {
        "products": products,
        "locations": _locations(points),
        "events": pl.DataFrame(rows, schema=_PLACED, orient="row"),
    }


def cinema() -> Tables:
    """Tickets: nobody sees a film twice; ten films a week start and run for three weeks; tastes are genres."""
    random = np.random.default_rng(2)
    genres = 8
    films = [(f"f{number:03d}", number % genres, number // 10) for number in range(10 * (WEEKS + AFTER))]
    rows = []
    for customer in range(500):
        tastes, seen = _chances(random, genres, 0.3), set[str]()
        for at in _moments(random, 1.2):
            week = (at - UNTIL + timedelta(weeks=WEEKS)).days // 7
            running = [film for film in films if film[2] <= week < film[2] + 3 and film[0] not in seen]
            chances = np.array([tastes[genre] for _, genre, _ in running]) + 1e-3
            film = running[int(random.choice(len(running), p=chances / chances.sum()))][0]
            seen.add(film)
            rows.append((f"c{customer:03d}", "purchase", at, film))
    return {
        "products": pl.DataFrame(
            {"product_id": [one for one, *_ in films], "type": [f"g{genre}" for _, genre, _ in films]}
        ),
        "events": pl.DataFrame(rows, schema=_EVENTS, orient="row"),
    }


def travel(*, placed: bool = True) -> Tables:
    """Check-ins: every product is a place of its own; customers stay in their region, and their favourites change."""
    random = np.random.default_rng(3)
    places = {f"h{number:03d}": _near(random, _CITIES[number % len(_CITIES)], 0.2) for number in range(160)}
    names = list(places)
    rows = []
    for customer in range(400):
        region = [name for number, name in enumerate(names) if number % len(_CITIES) == customer % len(_CITIES)]
        months = [_chances(random, len(region), 0.1) for _ in range(6)]
        for at in _moments(random, 2):
            month = (at - UNTIL + timedelta(weeks=WEEKS)).days // 28
            chances = (months[month] + months[max(month - 1, 0)]) / 2
            name = str(random.choice(region, p=chances))
            rows.append((f"c{customer:03d}", "check_in", at, name, name, "store"))
    events = pl.DataFrame(rows, schema=_PLACED, orient="row")
    if not placed:
        return {"events": events.drop("location").with_columns(channel=pl.lit("web"))}
    return {"locations": _locations(places), "events": events}


def news() -> Tables:
    """Views of articles alone: half of what is read is new each week; customers follow sections."""
    random = np.random.default_rng(4)
    sections = 10
    articles = [(f"a{number:04d}", number % sections, number // 40 - 1) for number in range(40 * (WEEKS + AFTER + 1))]
    rows = []
    for customer in range(300):
        tastes = _chances(random, sections, 0.3)
        for at in _moments(random, 3):
            week = (at - UNTIL + timedelta(weeks=WEEKS)).days // 7
            fresh = [one for one in articles if week - 1 <= one[2] <= week]
            weights = np.array([tastes[section] / (1 + number % 20) for number, (_, section, _) in enumerate(fresh)])
            chances = weights / weights.sum()
            read = random.choice(len(fresh), 3, replace=False, p=chances).tolist()
            rows += [(f"c{customer:03d}", "view", at, fresh[place][0]) for place in read]
    return {
        "products": pl.DataFrame(
            {"product_id": [one for one, *_ in articles], "type": [f"s{section}" for _, section, _ in articles]}
        ),
        "events": pl.DataFrame(rows, schema=_EVENTS, orient="row"),
    }


def shop() -> Tables:
    """A shop with 200 customers, two branches and baskets of some lines, half of which come back every week or two."""
    random = np.random.default_rng(5)
    products = [f"p{number:03d}" for number in range(150)]
    popular = random.dirichlet(np.full(len(products), 0.5))
    rows = []
    for customer in range(200):
        staples = random.choice(len(products), 8, replace=False, p=popular)
        gaps = random.integers(1, 4, len(staples))
        for number, at in enumerate(_moments(random, 1)):
            due = [int(row) for row, gap in zip(staples, gaps, strict=True) if number % gap == 0]
            basket = {*due, *random.choice(len(products), 2, p=popular).tolist()}
            rows += [
                (f"c{customer:03d}", "purchase", at, products[row], f"shop-{customer % 2}", "store") for row in basket
            ]
    return {
        "locations": _locations({"shop-0": _CITIES[0], "shop-1": _CITIES[1]}),
        "events": pl.DataFrame(rows, schema=_PLACED, orient="row"),
    }


def coupons(sold: int = 30, sharp: float = 0.2) -> Tables:
    """Offers shown on the web and accepted or refused; age and time of day say which, besides each customer's taste.

    A fifth of the customers comes only after ``UNTIL``: of them nothing is known but their age. So many products are
    sold; the larger ``sharp``, the more all customers buy alike.
    """
    random = np.random.default_rng(6)
    products, offers = [f"p{number:02d}" for number in range(sold)], [f"o{number}" for number in range(8)]
    ages = ["young", "middle", "old"]
    liking = random.normal(-0.5, 0.6, len(offers))
    by_age = random.normal(0, 1, (len(ages), len(offers)))
    by_part = random.normal(0, 1, (2, len(offers)))
    rows: list[tuple[Any, ...]] = []
    customers = []
    for customer in range(500):
        name, age = f"c{customer:03d}", customer % len(ages)
        customers.append((name, ages[age]))
        own, favourites = random.normal(0, 0.7, len(offers)), _chances(random, len(products), sharp)
        for at in _moments(random, 2):
            if customer % 5 == 4 and at < UNTIL:
                continue
            if random.random() < 0.4:
                product = str(random.choice(products, p=favourites))
                rows.append((name, "purchase", at - timedelta(hours=2), product, None))
            offer = int(random.integers(len(offers)))
            log_odds = liking[offer] + by_age[age, offer] + by_part[int(at.hour >= 14), offer] + own[offer]
            rows.append((name, "impression", at, None, offers[offer]))
            if random.random() < 1 / (1 + np.exp(-log_odds)):
                rows.append((name, "redemption", at + timedelta(minutes=1), None, offers[offer]))
            elif random.random() < 0.3:
                rows.append((name, "dismissal", at + timedelta(minutes=1), None, offers[offer]))
    schema = _EVENTS | {"offer_id": pl.String}
    return {
        "customers": pl.DataFrame(customers, schema={"customer_id": pl.String, "age": pl.String}, orient="row"),
        "products": pl.DataFrame({"product_id": products}),
        "offers": pl.DataFrame(
            {
                "offer_id": offers,
                "products": [[products[place % sold]] for place in range(len(offers))],
                "starts": [UNTIL - timedelta(weeks=WEEKS + 1)] * len(offers),
                "ends": [UNTIL + timedelta(weeks=AFTER + 1)] * len(offers),
                "uses": [1_000] * len(offers),
            }
        ),
        "events": pl.DataFrame(rows, schema=schema, orient="row").with_columns(channel=pl.lit("web")),
    }
