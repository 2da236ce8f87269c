"""Every reason of a thousand answers, worked out again from the tables and events by plain code of this file alone."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import numpy as np
import pytest

from embeddings.catalogue.context import Context, GeoPoint
from embeddings.customer.tower_input import Situation, encode
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving.batcher import Batcher
from serving.clock import Clock
from serving.engine import Engine
from serving.opening import open_view
from serving.pipeline import answer_batch
from serving.ranked import Kind
from serving.recommendation import Item, Recommendation, RecommendRequest
from serving.settings import Settings
from serving.slot import ViewSlot
from serving.state.decisions import DecisionStore
from serving.state.event import Event, Stored
from serving.state.events import EventStore, Page, Span
from serving.state.invalidations import Invalidations
from serving.view import View
from tests.world import CUSTOMERS, PRODUCTS, STORES, UNTIL, tables

ANSWERS = 1_000
NEAREST, MORE = 24, 3
"""How many products, the nearest to the customer's vector, the towers propose, and how many times as many where
products that are new to the customer or more than twenty are asked for."""

KINDS: list[tuple[Kind, ...]] = [("product",), ("offer",), ("product", "offer")]
SESSION, MONTH = timedelta(hours=6), timedelta(days=28)
INTERACTION_TYPES = ("view", "click", "add_to_cart", "purchase", "redemption")
DAY = f"{UNTIL:%Y-%m-%d}"
ODD_NORTH = GeoPoint(latitude=59.9, longitude=10, radius_km=150)  # north and unopened

TABLES = {name: frame.to_dicts() for name, frame in tables().items()}
PAST = [one for one in TABLES["events"] if one["at"] < UNTIL]
OFFERS = {one["offer_id"]: one for one in TABLES["offers"]}


class Did(NamedTuple):
    """Something a customer did, from the tables or reported since."""

    kind: str
    at: datetime
    product: str | None


class Asked(NamedTuple):
    """A request with its answer, and what its customer had done until then."""

    request: RecommendRequest
    answer: Recommendation
    done: list[Did]

    @property
    def at(self) -> datetime:
        assert self.request.context.at is not None
        return self.request.context.at

    @property
    def bought(self) -> list[Did]:
        return [one for one in self.done if one.kind == "purchase"]

    def lately(self, *kinds: str) -> set[str]:
        """What was done since the last purchase, within six hours."""
        begin = max([self.at - SESSION, *(one.at for one in self.bought)])
        return {one.product for one in self.done if one.kind in kinds and one.at > begin and one.product}


def places(context: Context) -> tuple[str, ...]:
    match context.location:
        case None:
            return ()
        case GeoPoint():
            return ("north", "unopened")
        case location:
            return (location,)


LATELY = Counter((one["product_id"], one["location"]) for one in PAST if one["at"] > UNTIL - MONTH)
BASKETS: dict[object, set[str]] = {}
OWNERS: dict[object, set[str]] = {}
for row in PAST:
    BASKETS.setdefault((row["customer_id"], row["at"]), set()).add(row["product_id"])
    OWNERS.setdefault(row["customer_id"], set()).add(row["product_id"])


def sold(products: Iterable[str], locations: Sequence[str]) -> int:
    """On how many purchases of the four weeks before the cut-off, at some locations."""
    return sum(LATELY[product, location] for product in products for location in locations)


@cache
def beside(product: str) -> frozenset[str]:
    """What one basket held together with a product."""
    return frozenset().union(*(basket - {product} for basket in BASKETS.values() if product in basket))


@cache
def beside_of_customers(product: str) -> frozenset[str]:
    """What a customer has bought who has bought a product, too."""
    return frozenset().union(*(some - {product} for some in OWNERS.values() if product in some))


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def days(text: str) -> int:
    return 1 if text.endswith("day") else int(text.split(maxsplit=1)[0])


def is_due(text: str, product: str, asked: Asked) -> bool:
    ats = sorted(one.at for one in asked.bought if one.product == product)
    gap = (ats[-1] - ats[0]) / timedelta(days=1) / (len({at.date() for at in ats}) - 1)
    since = (asked.at - ats[-1]) / timedelta(days=1)
    said = re.fullmatch(r"Bought every (day|\d+ days) or so, last (a day|\d+ days) ago\.", text)
    assert said, text
    assert days(said[1]) == pytest.approx(max(gap, 1), abs=0.501)
    assert days(said[2]) == pytest.approx(max(since, 1), abs=0.501)
    return gap / 2.001 <= since <= gap * 2.001


def holds(code: str, text: str, item: Item, asked: Asked, nearest: set[str]) -> bool:
    """Whether a reason is true."""
    here = places(asked.request.context)
    covered = set(OFFERS[item.id]["products"]) if item.kind == "offer" else {item.id}
    bought = [one.product for one in asked.bought if one.product in covered]
    sold_here, sold_anywhere = sold(covered, here), sold(covered, STORES)
    tells = any(one.kind in INTERACTION_TYPES and one.product for one in asked.done)
    return {
        "bought_before": lambda: text == f"Bought {times(len(bought))} before." and bool(bought),
        "due_now": lambda: is_due(text, item.id, asked),
        "goes_with_basket": lambda: beside(item.id) & asked.lately("add_to_cart"),
        "goes_with_viewed": lambda: beside(item.id) & asked.lately("view", "click"),
        "viewed": lambda: item.id in asked.lately("view", "click"),
        "bought_by_alike": lambda: beside_of_customers(item.id) & {one.product for one in asked.bought},
        "near_taste": lambda: tells and item.id in nearest,
        "fits_context": lambda: not tells and item.id in nearest and ("place" in text) == bool(here),
        "named": lambda: item.id in (asked.request.items or ()),
        "popular_here": lambda: sold_here and text == f"Bought {times(sold_here)} here in the four weeks before {DAY}.",
        "popular": lambda: (
            sold_anywhere and not sold_here and text == f"Bought {times(sold_anywhere)} in the four weeks before {DAY}."
        ),
        "eligible": lambda: not sold_anywhere,
        "covers_bought": lambda: (
            bought
            and re.fullmatch(r"Covers (\d+) products? bought before\.", text)
            and int(text.split()[1]) == len(set(bought))
        ),
        "covers_popular_here": lambda: (
            not bought
            and sold_here
            and text == f"Covers products bought {times(sold_here)} here in the four weeks before {DAY}."
        ),
        "covers_popular": lambda: (
            not bought
            and not sold_here
            and sold_anywhere
            and text == f"Covers products bought {times(sold_anywhere)} in the four weeks before {DAY}."
        ),
        "valid_until": lambda: text == f"Valid until {OFFERS[item.id]['ends']:%Y-%m-%d %H:%M} UTC.",
    }[code]()  # pyright: ignore[reportReturnType] - anything true will do


class Heard:
    """An event store that has what was reported, and is asked for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.invalidations = Invalidations(1)

    async def page(self, customer_id: str, span: Span, between: tuple[int, int], mark: int, most: int) -> Page:
        assert span.cut_off < span.snapshot
        rows = [
            Stored(one, seq, 0).row
            for seq, one in enumerate(self.events, start=1)
            if one.customer_id == customer_id and one.type != "impression" and between[0] < seq < between[1]
        ]
        return Page(mark, rows[::-1][:most])

    async def redeemed(self, *_: datetime) -> dict[str, int]:
        return dict(Counter(str(one.offer_id) for one in self.events if one.type == "redemption"))


def live_events(random: np.random.Generator) -> list[Event]:
    """What customers, known ones and new ones, did in the hours before they ask."""
    found: list[Event] = []
    for number in range(0, CUSTOMERS + 40, 2):
        for _ in range(int(random.integers(0, 6))):
            kind = str(random.choice(["view", "add_to_cart", "purchase", "dismissal", "redemption", "impression"]))
            offer = str(random.choice(list(OFFERS))) if kind in ("redemption", "dismissal") else None
            product = f"p{int(random.integers(PRODUCTS)):03d}" if kind != "redemption" else None
            at = UNTIL + timedelta(minutes=int(random.integers(600)))
            found.append(
                Event(
                    event_id=str(len(found)),
                    type=kind,  # pyright: ignore[reportArgumentType]
                    customer_id=f"c{number:03d}",
                    at=at,
                    product_id=product,
                    offer_id=offer,
                    location=str(random.choice(STORES)),
                    channel="store",
                )
            )
    return found


def requests(random: np.random.Generator, count: int) -> list[RecommendRequest]:
    """Many customers, some of them anonymous, in many contexts."""
    found: list[RecommendRequest] = []
    for _ in range(count):
        location = [None, "north", "south", "pole", "nowhere", ODD_NORTH][int(random.integers(6))]
        at = UNTIL + timedelta(minutes=600 + int(random.integers(120) * random.choice([1, 1, 300])))
        some = tuple(f"p{int(one):03d}" for one in random.integers(PRODUCTS, size=60))
        found.append(
            RecommendRequest(
                context=Context(str(random.choice(["web", "store", "email", "mailer"])), location, at),
                customer_id=None if random.random() < 0.1 else f"c{int(random.integers(CUSTOMERS + 60)):03d}",
                kinds=KINDS[int(random.integers(3))],
                limit=int(random.choice([3, 10, 100])),
                filter_already_bought=bool(random.random() < 0.1),
                items=(*some, "unsold") if random.random() < 0.1 else None,
            )
        )
    return found


@pytest.fixture(scope="module")
def heard() -> Heard:
    heard = Heard()
    heard.events = live_events(np.random.default_rng(2))
    return heard


@pytest.fixture(scope="module")
def models(published: tuple[BundleStore, Manifest], heard: Heard) -> list[View]:
    """As the service is started by default, without its ranker, and with few sources."""
    bundles, manifest = published
    usual = Settings(store=bundles.bundle(manifest.version).parents[1])
    few = msgspec.structs.replace(usual, sources=("buy_again", "trending"))
    some = (usual, msgspec.structs.replace(usual, ranked=False), few)
    return [open_view(one, manifest.version, cast("EventStore", heard)) for one in some]


def ask(model: View, heard: Heard, count: int) -> list[Asked]:
    """Every request with its answer."""
    done: dict[str, list[Did]] = {}
    for row in PAST:
        done.setdefault(row["customer_id"], []).append(Did(row["type"], row["at"], row["product_id"]))
    for event in heard.events:
        done.setdefault(event.customer_id, []).append(Did(event.type, event.at, event.product_id))

    async def all_answers() -> list[Asked]:
        engine = Engine(
            ViewSlot(model),
            Batcher(answer_batch, 64),
            Clock("replay", int(UNTIL.timestamp())),
            lambda: False,
            DecisionStore("", "none", cast("EventStore", heard)),
        )
        some = requests(np.random.default_rng(3), count)
        answers = [await engine.recommend(one) for one in some]
        return [
            Asked(one, answer, done.get(one.customer_id or "", [])) for one, answer in zip(some, answers, strict=True)
        ]

    return asyncio.run(all_answers())


def nearest(asked: Asked, model: View) -> set[str]:
    """The products nearest to the customer's vector of those that the request and the context allow, by brute force."""
    request, bundle = asked.request, model.release.bundle
    place = model.eligibility.place(request.context.location)
    allowed = model.eligibility.products(request.context, place, int(asked.at.timestamp())).rows_N.tolist()
    ids = model.catalogue.products.ids
    rows = [row for row in allowed if request.items is None or ids.id(row) in request.items]
    if request.filter_already_bought:
        bought = {one.product for one in asked.bought}
        rows = [row for row in rows if ids.id(row) not in bought]
    known = (
        asyncio.run(model.release.live.of(request.customer_id)).history
        if request.customer_id
        else model.release.live.anonymous
    )
    at = int(asked.at.timestamp())
    found: set[str] = set()
    for moment in {at, at // 3_600 * 3_600}:  # to nobody in particular it is answered as of the hour
        channel = model.eligibility.channel(request.context.channel)
        situation = Situation(channel, -1, moment).at(place, known.purchases)
        longest = bundle.statistics.longest_absence
        tower_input = encode([known], [situation], bundle.manifest.history_length, longest)
        (customer_D,) = bundle.customer_encoder.encode(tower_input, bundle.vectors_ND)
        inner = sorted(((float(bundle.vectors_ND[row] @ customer_D), row) for row in rows), reverse=True)
        assert isinstance(request.limit, int)
        more = MORE if request.filter_already_bought or request.limit > 20 else 1
        found |= {ids.id(row) for _, row in inner[: max(NEAREST * more, request.limit)]}
    return found


def test_every_reason_of_a_thousand_answers_holds(models: list[View], heard: Heard):
    codes = Counter[str]()
    for model, answers in zip(models, (ANSWERS, 100, 200), strict=True):
        for asked in ask(model, heard, answers):
            near = nearest(asked, model)
            for item in asked.answer.items:
                assert item.reasons, item
                for reason in item.reasons:
                    codes[reason.code] += 1
                    context = msgspec.json.encode(asked.request)
                    assert holds(reason.code, reason.text, item, asked, near), (reason, item.id, item.source, context)
    assert set(codes) == documented(), codes


def documented() -> set[str]:
    """The codes that the documentation names."""
    text = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text()
    listed = text[text.index("| code | ") :].split("\n\n")[0]
    return set(re.findall(r"^\| `([a-z_]+)`", listed, re.MULTILINE))
