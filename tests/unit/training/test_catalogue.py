"""What is carried and popular where, as events before a moment show it, against sums by hand and a slow oracle."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.catalogue.tables import TABLES
from embeddings.customer.history import EVENT, PURCHASE, Events
from training.catalogue import master_catalogue, promotion_id, still_promoted
from training.config import AssortmentConfig, Recipe
from training.datasets.frames import Dataset, GivenTable, assemble
from training.observed import Observation, observe

RECIPE = Recipe(channels={"store": ChannelRule.ASSORTMENT, "mailer": ChannelRule.PROMOTED})
HALVING = AssortmentConfig(popularity_daily_decay=0.5)
DAY = 86_400
NOW = 100 * DAY
SINCE = datetime(2025, 6, 1, tzinfo=UTC)
VIEW = 3

Sale = tuple[int, int, int]  # at, product, location


def dataset(*, stored: bool = False, **tables: pl.DataFrame) -> Dataset:
    given = [one for one in TABLES if one.name in tables]
    return assemble("test", (GivenTable(one, one.name, tables[one.name].lazy(), stored=stored) for one in given))


def master(regions: list[str | None], products: int = 4, declared: dict[str, list[str]] | None = None) -> Catalogue:
    """Locations l0, l1 … and products p0, p1 …, some declared to be carried somewhere."""
    ids = [f"p{row}" for row in range(products)]
    return master_catalogue(
        dataset(
            products=pl.DataFrame(
                {"product_id": ids, "locations": [(declared or {}).get(one) for one in ids]},
                schema={"product_id": pl.String, "locations": pl.List(pl.String)},
            ),
            locations=pl.DataFrame(
                {"location": [f"l{row}" for row in range(len(regions))], "region": regions},
                schema={"location": pl.String, "region": pl.String},
            ),
        ),
        RECIPE,
        SINCE,
    )


def events(sales: list[Sale], kind: int = PURCHASE) -> Events:
    found = np.zeros(len(sales), EVENT)
    for column, values in zip(("at", "product", "location"), zip(*sales, strict=True), strict=False):
        found[column] = values
    found["type"] = kind
    return found


def carried(found: Observation) -> list[dict[int, float]]:
    """By location, the products it carries and how popular they are there."""
    seen, here = found.observed, list[dict[int, float]]()
    for at, number in enumerate(seen.lists_M.tolist()):
        rows = found.catalogue.locations.assortment[at]
        begin, end = seen.sold.offsets[number : number + 2].tolist() if number >= 0 else (0, 0)
        sold = dict(zip(seen.sold.values[begin:end].tolist(), seen.popularity_L[begin:end].tolist(), strict=True))
        here.append({row: sold.get(row, 0.0) for row in rows.tolist()})
    return here


def test_a_location_carries_what_was_declared_and_what_it_sold_before_the_moment() -> None:
    catalogue = master(["r", "r"], declared={"p3": ["l0"], "p1": ["l0", "l1"]})
    assert [one.tolist() for one in catalogue.locations.assortment] == [[1, 3], [1]]
    sales = [(NOW - 1, 2, 0), (NOW - DAY, 0, 0), (NOW, 0, 1), (NOW + 1, 2, 1)]
    found = observe(catalogue, events(sales), NOW, HALVING)
    assert [sorted(one) for one in carried(found)] == [[0, 1, 2, 3], [1]]
    assert found.catalogue.locations.known_M.all()


def test_popularity_halves_in_a_day() -> None:
    sales = [(NOW - DAY, 0, 0), (NOW - 2 * DAY, 0, 0), (NOW - 3 * DAY, 0, 1), (NOW - DAY // 2, 1, -1)]
    found = observe(master(["r", "r"], declared={"p2": ["l0"]}), events(sales), NOW, HALVING)
    assert carried(found) == [{0: 0.75, 2: 0}, {0: 0.125}]
    assert found.observed.popularity_N.tolist() == pytest.approx([0.875, 0.5**0.5, 0, 0])
    assert found.observed.trained_N.tolist() == [True, True, False, False]


def test_only_purchases_of_products_count() -> None:
    catalogue = master(["r"], declared={"p0": ["l0"]})
    for unsold in (events([(NOW - 1, 1, 0)], VIEW), events([(NOW - 1, -1, 0)]), events([])):
        found = observe(catalogue, unsold, NOW, HALVING)
        assert carried(found) == [{0: 0}]
        assert not found.observed.popularity_N.any()
        assert not found.observed.trained_N.any()


def sold_at(location: int, *products: int) -> list[Sale]:
    """One sale of each product at a location, one day before the moment: half a sale's weight."""
    return [(NOW - DAY, product, location) for product in products]


def test_an_unknown_location_carries_what_half_of_its_region_does_at_their_mean_popularity() -> None:
    catalogue = master(["a", "a", "a", "b", "a"])
    sales = sold_at(0, 0, 1) + sold_at(1, 0, 1, 1) + sold_at(2, 0, 2) + sold_at(3, 3)
    found = observe(catalogue, events(sales), NOW, HALVING)
    # p0 in three of three, p1 in two, p2 in one, p3 only in another region.
    assert carried(found)[4] == pytest.approx({0: 0.5, 1: 0.5})
    assert carried(found)[:4] == [{0: 0.5, 1: 0.5}, {0: 0.5, 1: 1.0}, {0: 0.5, 2: 0.5}, {3: 0.5}]
    assert found.catalogue.locations.known_M.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize(("share", "expected"), [(0.0, {0, 1, 2}), (0.5, {0, 1}), (0.7, {0}), (1.0, {0})])
def test_the_share_of_comparable_locations_that_must_carry_a_product(share: float, expected: set[int]) -> None:
    sales = sold_at(0, 0, 1) + sold_at(1, 0, 1) + sold_at(2, 0, 2)
    config = AssortmentConfig(comparable_share=share)
    found = observe(master(["a"] * 4), events(sales), NOW, config)
    assert carried(found)[3].keys() == expected


@pytest.mark.parametrize(("size", "expected"), [(0.25, {0, 1, 2, 3}), (0.26, {1, 2, 3})])
def test_a_location_much_narrower_than_the_widest_is_not_comparable(size: float, expected: set[int]) -> None:
    # Of four products at the widest, one is a share of 0.25. The widest lies in another region.
    sales = sold_at(0, 0) + sold_at(1, 1, 2, 3) + sold_at(2, 0, 1, 2, 3)
    config = AssortmentConfig(comparable_size=size, comparable_share=0.5)
    found = observe(master(["a", "a", "b", "a"]), events(sales), NOW, config)
    assert carried(found)[3].keys() == expected


@pytest.mark.parametrize("region", ["nobody", None])
def test_where_no_location_of_the_region_is_known_all_regions_count(region: str | None) -> None:
    sales = sold_at(0, 0, 1) + sold_at(1, 1, 2)
    config = AssortmentConfig(comparable_share=0.6)
    found = observe(master(["a", "b", region]), events(sales), NOW, config)
    assert carried(found)[2].keys() == {1}


def test_where_nothing_is_known_anywhere_nothing_is_carried() -> None:
    found = observe(master(["a", None]), events([]), NOW, HALVING)
    assert carried(found) == [{}, {}]
    assert not found.catalogue.locations.known_M.any()


sales_ = st.lists(st.tuples(st.integers(NOW - 3 * DAY, NOW + 3 * DAY), st.integers(-1, 3), st.integers(-1, 2)))


@given(sales_)
def test_events_at_or_after_the_moment_change_nothing(sales: list[Sale]) -> None:
    catalogue = master(["a", "b", "a"])
    found = observe(catalogue, events(sales), NOW, HALVING)
    past = observe(catalogue, events([one for one in sales if one[0] < NOW]), NOW, HALVING)
    assert carried(found) == carried(past)
    assert found.observed.popularity_N.tolist() == past.observed.popularity_N.tolist()
    assert found.observed.trained_N.tolist() == past.observed.trained_N.tolist()


@given(sales_)
def test_what_was_sold_and_how_often_agrees_with_counting_one_by_one(sales: list[Sale]) -> None:
    expected: list[dict[int, float]] = [defaultdict(float, {2: 0.0}) for _ in range(3)]
    popularity = [0.0] * 4
    for at, product, location in sales:
        if at < NOW and product >= 0:
            weight = 0.5 ** ((NOW - at) / DAY)
            popularity[product] += weight
            if location >= 0:
                expected[location][product] += weight
    catalogue = master(["a", "b", "a"], declared={"p2": ["l0", "l1", "l2"]})
    found = observe(catalogue, events(sales), NOW, HALVING)
    assert [dict(one) for one in carried(found)] == [pytest.approx(one) for one in expected]
    assert found.observed.popularity_N.tolist() == pytest.approx(popularity)


def test_master_data_are_coded_by_row_and_unknown_is_nought() -> None:
    catalogue = master_catalogue(
        dataset(
            products=pl.DataFrame(
                {"product_id": ["p1", "p0"], "price": [None, 2.5], "brand": ["z", None], "kind": ["b", "a"]}
            ),
            locations=pl.DataFrame(
                {"location": ["l0", "l1"], "latitude": [None, 1.5], "longitude": [None, 2.5], "region": [None, "r"]}
            ),
        ),
        RECIPE,
        SINCE,
    )
    products, locations = catalogue.products, catalogue.locations
    assert products.ids.ids() == ["p1", "p0"]
    assert products.attributes.names == ("brand", "kind")
    assert products.attributes.labels == (("z",), ("a", "b"))
    assert products.attributes.codes_NA.tolist() == [[1, 2], [0, 1]]
    assert np.isnan(products.price_N[0])
    assert products.price_N[1] == 2.5
    assert np.isnan(locations.coordinates_M2[0]).all()
    assert locations.coordinates_M2[1].tolist() == [1.5, 2.5]
    assert locations.regions_M.tolist() == [0, 1]
    assert not locations.known_M.any()


def offers(**lists: list[list[str] | None]) -> Catalogue:
    count = len(next(iter(lists.values())))
    columns = {"channels": [None] * count, "locations": [None] * count} | lists
    frame = pl.DataFrame(
        {
            "offer_id": [f"o{row}" for row in range(count)],
            "products": [["p1", "p0", "p1"]] * count,
            "starts": [SINCE] * count,
            "ends": [SINCE + timedelta(days=1)] * count,
            "audience": ["z", *["a"] * (count - 1)],
            "uses": [None, *[3] * (count - 1)],
            **columns,
        },
        schema_overrides={name: pl.List(pl.String) for name in columns},
    )
    return master_catalogue(
        dataset(
            offers=frame,
            products=pl.DataFrame({"product_id": ["p0", "p1"]}),
            locations=pl.DataFrame({"location": ["l0"]}),
        ),
        RECIPE,
        SINCE,
    )


def test_offers_hold_rows_codes_and_seconds() -> None:
    found = offers(channels=[None, ["mailer"]])
    assert found.audiences == ("a", "z")
    assert found.offers.audiences_O.tolist() == [1, 0]
    assert found.offers.uses_O.tolist() == [1, 3]
    assert [found.offers.products[row].tolist() for row in range(2)] == [[0, 1]] * 2
    assert [found.offers.channels[row].tolist() for row in range(2)] == [[], [1]]
    assert found.offers.starts_O.tolist() == [int(SINCE.timestamp())] * 2
    assert (found.offers.ends_O - found.offers.starts_O).tolist() == [DAY] * 2


@pytest.mark.parametrize("column", ["channels", "locations"])
def test_an_offer_with_an_empty_list_is_valid_nowhere_and_one_without_a_list_everywhere(column: str) -> None:
    found = offers(**{column: [[], None]}).offers
    assert (found.starts_O < found.ends_O).tolist() == [False, True]


def promoted(since: datetime) -> Catalogue:
    weeks = [(SINCE + timedelta(weeks=week), SINCE + timedelta(weeks=week + 1)) for week in (-2, -1, 0)]
    rows = [("mailer", "l0", product, *week) for week in weeks for product in ("p1", "p0", "p1")]
    frame = pl.DataFrame(rows, schema=["channel", "location", "product_id", "starts", "ends"], orient="row")
    return master_catalogue(dataset(promotions=frame), RECIPE, since)


def test_the_promotion_plan_begins_with_what_still_runs() -> None:
    plan = promoted(SINCE - timedelta(days=8)).promotions
    first = int(SINCE.timestamp()) - 14 * DAY
    assert plan.starts_G.tolist() == [first, first + 7 * DAY, first + 14 * DAY]
    assert plan.ends_G.tolist() == (plan.starts_G + 7 * DAY).tolist()
    assert (plan.channels_G.tolist(), plan.locations_G.tolist()) == ([1] * 3, [0] * 3)
    assert [plan.products[row].tolist() for row in range(3)] == [[0, 1]] * 3
    assert len(promoted(SINCE).promotions.starts_G) == 1


@pytest.mark.parametrize("days", [-8, -7, -1, 0, 6, 7])
def test_cutting_the_plan_later_is_reading_it_later(days: int) -> None:
    moment = SINCE + timedelta(days=days)
    found = still_promoted(promoted(SINCE - timedelta(days=99)).promotions, int(moment.timestamp()))
    expected = promoted(moment).promotions
    assert found.starts_G.tolist() == expected.starts_G.tolist()
    assert found.ends_G.tolist() == expected.ends_G.tolist()
    assert found.channels_G.tolist() == expected.channels_G.tolist()
    assert found.locations_G.tolist() == expected.locations_G.tolist()
    assert found.products.offsets.tolist() == expected.products.offsets.tolist()
    assert found.products.values.tolist() == expected.products.values.tolist()
    assert found.ids.ids() == expected.ids.ids()


def test_promotions_of_a_folder_are_called_as_the_database_calls_them_once_they_are_loaded() -> None:
    span = SINCE, SINCE + timedelta(weeks=1)
    assert promoted(SINCE).promotions.ids.ids() == [promotion_id("mailer", "l0", *span)]


def test_promotions_of_a_database_keep_their_ids_also_where_they_are_of_one_time_and_place() -> None:
    span = SINCE, SINCE + timedelta(weeks=1)
    rows = [(one, "mailer", "l0", product, *span) for one, product in (("b", "p1"), ("a", "p1"), ("b", "p0"))]
    schema = ["promotion_id", "channel", "location", "product_id", "starts", "ends"]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    plan = master_catalogue(dataset(promotions=frame, stored=True), RECIPE, SINCE).promotions
    assert plan.ids.ids() == ["a", "b"]
    assert [plan.products[row].tolist() for row in range(2)] == [[1], [0, 1]]
