"""Eligible sets against the tables of the small world, read row by row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haversine import haversine_vector
from hypothesis import assume, given
from hypothesis import strategies as st

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.catalogue.context import Context, GeoPoint
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import EVENT, REDEMPTION, History
from embeddings.errors import InvalidInput, UnknownReference
from tests.world import UNTIL, carries, tables
from training.catalogue import master_catalogue
from training.config import RECIPES, Recipe, read_recipe
from training.datasets import as_of, open_dataset
from training.histories import read_histories
from training.observed import observe

TABLES: Mapping[str, list[dict[str, Any]]] = {name: frame.to_dicts() for name, frame in tables().items()}
PRODUCTS = [row["product_id"] for row in TABLES["products"]]
OFFERS = [row["offer_id"] for row in TABLES["offers"]]
LOCATIONS = [row["location"] for row in TABLES["locations"]]
PLANNED = [row for row in TABLES["promotions"] if row["ends"] > UNTIL]
RULES = read_recipe(RECIPES / "default.toml").channels


def bounds(rows: list[dict[str, Any]]) -> list[int]:
    return sorted({int(row[end].timestamp()) for row in rows for end in ("starts", "ends")})


BOUNDS = bounds(TABLES["offers"] + TABLES["promotions"])
MOMENTS = st.one_of(
    st.builds(int.__add__, st.sampled_from(BOUNDS), st.integers(-1, 1)),
    st.integers(BOUNDS[0] - 1000, BOUNDS[-1] + 1000),
)
POINTS = st.builds(
    GeoPoint, st.floats(-90, 90), st.floats(-180, 180), st.one_of(st.floats(1, 3000), st.floats(1, 20_038))
)
PLACES = st.one_of(st.none(), st.sampled_from(LOCATIONS), POINTS)
CHANNELS = st.sampled_from(list(RULES))


@pytest.fixture(scope="module")
def catalogue(world: Path, recipe: Recipe) -> Catalogue:
    dataset = as_of(open_dataset(str(world), channels=recipe.channels, now=UNTIL), UNTIL)
    master = master_catalogue(dataset, recipe, UNTIL)
    events = read_histories(dataset, master, 0).events
    return observe(master, events, int(UNTIL.timestamp()), recipe.assortment).catalogue


@pytest.fixture(scope="module")
def eligibility(catalogue: Catalogue) -> Eligibility:
    """One for all examples: so its memo is asked about moments in any order."""
    return Eligibility(catalogue)


def kilometres(point: GeoPoint, location: dict[str, Any]) -> float:
    """Great-circle distance by the dot product of unit vectors, with the cross product for accuracy."""
    one, other = (
        np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])
        for lat, lon in (
            (math.radians(point.latitude), math.radians(point.longitude)),
            (math.radians(location["latitude"]), math.radians(location["longitude"])),
        )
    )
    return 6371.0088 * math.atan2(float(np.linalg.norm(np.cross(one, other))), float(one @ other))


def meant(place: str | GeoPoint | None) -> list[str] | None:
    """The locations a context speaks of, the nearest first."""
    if place is None or isinstance(place, str):
        return None if place is None else [place]
    near = {row["location"]: kilometres(place, row) for row in TABLES["locations"] if row["latitude"] is not None}
    assume(all(abs(distance - place.radius_km) > 1e-6 for distance in near.values()))  # a border has its own test
    return sorted((one for one in near if near[one] <= place.radius_km), key=near.__getitem__)


def assortments() -> dict[str, set[str]]:
    """What each location sold before the cut-off or declares; else what comparable ones carry."""
    found: dict[str, set[str]] = {location: set() for location in LOCATIONS}
    for event in TABLES["events"]:
        if event["at"] < UNTIL:
            found[event["location"]].add(event["product_id"])
    for product in TABLES["products"]:
        for location in product["locations"] or []:
            found[location].add(product["product_id"])
    regions = {row["location"]: row["region"] for row in TABLES["locations"]}
    known = {location for location in LOCATIONS if found[location]}
    assert known == {"north", "south"}  # of like size: each is comparable wherever its region fits
    for location in set(LOCATIONS) - known:
        comparable = [one for one in known if regions[one] == regions[location]] or list(known)
        found[location] = {
            product
            for product in PRODUCTS
            if sum(product in found[one] for one in comparable) >= max(1, 0.5 * len(comparable))
        }
    return found


ASSORTMENTS = assortments()


def allowed_products(channel: str, locations: list[str] | None, moment: int) -> set[str]:
    match RULES[channel]:
        case ChannelRule.EVERYTHING:
            return set(PRODUCTS)
        case ChannelRule.ASSORTMENT:
            return set[str]().union(*(ASSORTMENTS[one] for one in (LOCATIONS if locations is None else locations)))
        case ChannelRule.PROMOTED:
            return {
                row["product_id"]
                for row in PLANNED
                if row["channel"] == channel
                and row["starts"].timestamp() <= moment < row["ends"].timestamp()
                and (locations is None or row["location"] in locations)
            }


def allowed_offers(
    channel: str, locations: list[str] | None, audiences: Iterable[str], moment: int, redeemed: Sequence[str] = ()
) -> set[str]:
    return {
        row["offer_id"]
        for row in TABLES["offers"]
        if redeemed.count(row["offer_id"]) < (row["uses"] or 1)
        if row["starts"].timestamp() <= moment < row["ends"].timestamp()
        if (row["channels"] is None or channel in row["channels"])
        and (row["locations"] is None or locations is None or set(row["locations"]) & set(locations))
        and (row["audience"] is None or row["audience"] in audiences)
    }


def products(eligibility: Eligibility, channel: str, place: str | GeoPoint | None, moment: int) -> EligibleSet:
    return eligibility.products(Context(channel, place), eligibility.place(place), moment)


def offers(
    eligibility: Eligibility,
    channel: str,
    place: str | GeoPoint | None,
    moment: int,
    *,
    vip: bool = False,
    redeemed: Sequence[str] = (),
) -> EligibleSet:
    events_E = np.zeros(len(redeemed) + 1, EVENT)
    events_E["type"], events_E["offer"] = REDEMPTION, -1  # the last one is of an offer that nobody knows any more
    events_E["offer"][:-1] = [OFFERS.index(one) for one in redeemed]
    history = History(events_E if redeemed else events_E[:0], np.zeros(0, np.int32), (0,) if vip else ())
    return eligibility.offers(
        Context(channel, place), eligibility.place(place), moment, history.audiences, history.redeemed_R
    )


def names(ids: list[str], found: EligibleSet) -> set[str]:
    assert found.rows_N.tolist() == sorted(set(found.rows_N.tolist()))
    return {ids[row] for row in found.rows_N.tolist()}


def shown(catalogue: Catalogue, found: EligibleSet) -> set[str]:
    return names(catalogue.offers.ids.ids(), found)


def seconds(**after: float) -> int:
    return int((UNTIL + timedelta(**after)).timestamp())


@given(channel=CHANNELS, place=PLACES, moment=MOMENTS)
def test_products_are_those_the_tables_allow(
    eligibility: Eligibility, channel: str, place: str | GeoPoint | None, moment: int
):
    locations = meant(place)
    assert names(PRODUCTS, products(eligibility, channel, place, moment)) == allowed_products(
        channel, locations, moment
    )


@given(channel=CHANNELS, place=PLACES, moment=MOMENTS, vip=st.booleans())
def test_offers_are_those_the_tables_allow(
    catalogue: Catalogue, eligibility: Eligibility, channel: str, place: str | GeoPoint | None, moment: int, vip: bool
):
    found = offers(eligibility, channel, place, moment, vip=vip)
    audiences = ["vip"] if vip else []
    assert shown(catalogue, found) == allowed_offers(channel, meant(place), audiences, moment)


@given(channel=CHANNELS, place=PLACES, moment=MOMENTS, redeemed=st.lists(st.sampled_from(OFFERS), max_size=6))
def test_an_offer_redeemed_as_often_as_it_may_be_is_not_among_them(
    catalogue: Catalogue,
    eligibility: Eligibility,
    channel: str,
    place: str | GeoPoint | None,
    moment: int,
    redeemed: list[str],
):
    found = offers(eligibility, channel, place, moment, redeemed=redeemed)
    assert shown(catalogue, found) == allowed_offers(channel, meant(place), [], moment, redeemed)


@given(place=POINTS)
def test_the_locations_around_a_point_come_nearest_first(eligibility: Eligibility, place: GeoPoint):
    locations = meant(place)
    found = eligibility.place(place)
    assert [LOCATIONS[row] for row in found.rows or ()] == locations
    assert found.nearest == (LOCATIONS.index(locations[0]) if locations else -1)


@given(channel=CHANNELS, place=PLACES, moment=MOMENTS, vip=st.booleans(), data=st.data())
def test_a_set_holds_until_the_time_it_says(
    catalogue: Catalogue, channel: str, place: str | GeoPoint | None, moment: int, vip: bool, data: st.DataObject
):
    def ask(at: int) -> tuple[EligibleSet, EligibleSet]:
        fresh = Eligibility(catalogue)
        return products(fresh, channel, place, at), offers(fresh, channel, place, at, vip=vip)

    changes = (bounds(PLANNED) if RULES[channel] is ChannelRule.PROMOTED else [], bounds(TABLES["offers"]))
    for which, found in enumerate(ask(moment)):
        following = next((bound for bound in changes[which] if bound > moment), None)
        assert found.valid_until == (FOREVER if following is None else datetime.fromtimestamp(following, UTC))
        until = following or BOUNDS[-1] + 1_000_000
        for later in (until - 1, data.draw(st.integers(moment, until - 1))):
            again = ask(later)[which]
            assert (again.fingerprint, again.valid_until) == (found.fingerprint, found.valid_until)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_small_memo_answers_right_forwards_and_backwards(
    kept: int, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("embeddings.catalogue.eligibility.REMEMBERED_BYTES", kept * 600)
    eligibility = Eligibility(catalogue)
    moments = [bound + step for bound in BOUNDS for step in (-1, 0, 1)]
    for moment in [*moments, *reversed(moments)]:
        for place in ("north", "south", None):
            locations = meant(place)
            found = products(eligibility, "mailer", place, moment)
            assert names(PRODUCTS, found) == allowed_products("mailer", locations, moment)
            assert shown(catalogue, offers(eligibility, "web", place, moment)) == allowed_offers(
                "web", locations, [], moment
            )


def test_a_set_is_found_again_without_being_made_again(catalogue: Catalogue):
    eligibility = Eligibility(catalogue)
    assert products(eligibility, "store", "north", 0) is products(eligibility, "store", "north", 10**10)
    now, later = seconds(hours=1), seconds(hours=2)
    assert products(eligibility, "mailer", "north", now) is products(eligibility, "mailer", "north", later)
    assert offers(eligibility, "web", None, now) is offers(eligibility, "web", None, later)
    assert offers(eligibility, "web", None, now) is not offers(eligibility, "web", None, now, vip=True)


def test_a_store_shows_what_it_carries_and_nothing_sold_only_later(eligibility: Eligibility):
    north = names(PRODUCTS, products(eligibility, "store", "north", seconds()))
    assert all(carries("north", one) for one in north)
    assert "late" not in north
    assert names(PRODUCTS, products(eligibility, "store", "unopened", seconds())) == north
    assert "unsold" in names(PRODUCTS, products(eligibility, "store", "south", seconds()))


def test_the_sets_of_two_channels_with_one_rule_are_one(eligibility: Eligibility):
    web, app = (products(eligibility, channel, "north", seconds()) for channel in ("web", "app"))
    assert web.fingerprint == app.fingerprint
    assert web.fingerprint != products(eligibility, "store", "north", seconds()).fingerprint


def test_a_window_holds_from_its_first_second_to_before_its_last(catalogue: Catalogue, eligibility: Eligibility):
    starts, ends = seconds(days=30), seconds(days=365)
    assert [
        "coming" in shown(catalogue, offers(eligibility, "web", None, moment))
        for moment in (starts - 1, starts, ends - 1, ends)
    ] == [False, True, True, False]


def test_a_promotion_changes_at_the_very_second(eligibility: Eligibility):
    this_week, next_week = (
        {row["product_id"] for row in PLANNED if row["location"] == "north" and row["starts"] == start}
        for start in (UNTIL, UNTIL + timedelta(weeks=1))
    )
    assert this_week
    assert not this_week & next_week
    change = seconds(weeks=1)
    found = products(eligibility, "mailer", "north", change - 1)
    assert names(PRODUCTS, found) == this_week
    assert found.valid_until == UNTIL + timedelta(weeks=1)
    assert names(PRODUCTS, products(eligibility, "mailer", "north", change)) == next_week


@pytest.mark.parametrize(
    ("point", "location", "distance"),
    [
        (GeoPoint(-17, -179.9, 1), "dateline", 21.267),
        (GeoPoint(-17, 180, 1), "dateline", 10.634),
        (GeoPoint(-17, -180, 1), "dateline", 10.634),
        (GeoPoint(89.9, 123, 1), "pole", 11.120),
        (GeoPoint(60.0, 11.0, 1), "north", 55.597),
    ],
    ids=["across the antimeridian", "on it, east", "on it, west", "near the pole", "plain"],
)
def test_a_radius_is_measured_along_the_globe(
    point: GeoPoint, location: str, distance: float, eligibility: Eligibility
):
    just_within, just_without = (
        eligibility.place(GeoPoint(point.latitude, point.longitude, distance + step)).rows for step in (0.002, -0.002)
    )
    assert just_within == (LOCATIONS.index(location),)
    assert just_without == ()


def test_any_longitude_is_the_pole(eligibility: Eligibility):
    for longitude in (-180, -90.5, 0, 33, 180):
        assert eligibility.place(GeoPoint(90, longitude, 0.001)).rows == (LOCATIONS.index("pole"),)


def test_the_border_of_a_radius_belongs_to_it(eligibility: Eligibility):
    exact = float(haversine_vector([[60.0, 11.0]], [[60.0, 10.0]])[0])
    assert eligibility.place(GeoPoint(60, 11, exact)).rows == (LOCATIONS.index("north"),)
    assert eligibility.place(GeoPoint(60, 11, float(np.nextafter(exact, 0)))).rows == ()


def test_a_radius_around_the_globe_holds_every_location_with_coordinates(eligibility: Eligibility):
    rows = eligibility.place(GeoPoint(-60, -170, 20_038)).rows
    assert sorted(rows or ()) == [row for row, one in enumerate(LOCATIONS) if one != "nowhere"]


def test_a_radius_that_holds_no_location_leaves_a_store_nothing(catalogue: Catalogue, eligibility: Eligibility):
    ocean = GeoPoint(0, -140, 5)
    assert eligibility.place(ocean) == Place(())
    assert len(products(eligibility, "store", ocean, seconds()).rows_N) == 0
    assert len(products(eligibility, "mailer", ocean, seconds()).rows_N) == 0
    assert len(products(eligibility, "web", ocean, seconds()).rows_N) == len(PRODUCTS)
    assert shown(catalogue, offers(eligibility, "web", ocean, seconds())) == {"everyone"}


def test_a_point_is_refused_where_no_location_has_coordinates(catalogue: Catalogue):
    nowhere = catalogue._replace(
        locations=catalogue.locations._replace(coordinates_M2=np.full((len(LOCATIONS), 2), np.nan))
    )
    with pytest.raises(InvalidInput, match="no location of this catalogue has coordinates") as refused:
        Eligibility(nowhere).place(GeoPoint(0, 0, 20_000), "query.point")
    assert refused.value.field == "query.point"


def test_an_unknown_location_is_refused_by_name(eligibility: Eligibility):
    with pytest.raises(UnknownReference, match="'atlantis'") as refused:
        eligibility.place("atlantis")
    assert refused.value.field == "context.location"


def test_an_unknown_channel_is_refused_by_name(eligibility: Eligibility):
    for ask in (products, offers):
        with pytest.raises(UnknownReference, match=r"web, app.*'fax'") as refused:
            ask(eligibility, "fax", None, seconds())
        assert refused.value.field == "context.channel"


@given(CHANNELS, PLACES, MOMENTS, st.sets(st.integers(0, len(PRODUCTS) - 1)))
def test_what_is_not_recommendable_is_shown_nowhere(
    catalogue: Catalogue,
    eligibility: Eligibility,
    channel: str,
    place: str | GeoPoint | None,
    moment: int,
    withheld: set[int],
):
    recommendable_N = ~np.isin(np.arange(len(PRODUCTS)), list(withheld))
    some = Eligibility(catalogue._replace(products=catalogue.products._replace(recommendable_N=recommendable_N)))
    context = Context(channel)
    whole = eligibility.products(context, eligibility.place(place), moment)
    found = some.products(context, some.place(place), moment)
    assert found.rows_N.tolist() == [row for row in whole.rows_N.tolist() if row not in withheld]
