"""What passes the checks and means little is said, with a row that shows it; what is sound is not complained of."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import polars as pl
import pytest
from msgspec.structs import replace

from embeddings.catalogue.columns import ChannelRule
from training.config import RankerConfig, Recipe, TablesConfig
from training.datasets import open_dataset
from training.datasets.finding import Finding
from training.datasets.report import in_html, in_lines, in_text
from training.datasets.summary import Summary, summarise

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
CHANNELS = {"web": ChannelRule.EVERYTHING, "store": ChannelRule.ASSORTMENT, "mailer": ChannelRule.PROMOTED}

RECIPE = Recipe(
    channels=CHANNELS, ranker=RankerConfig(type_attribute="brand", category_attribute="", maker_attribute="")
)

Tables = dict[str, pl.DataFrame]


def sound() -> Tables:
    """120 customers who bought on six days each, at two stores, and products with two attributes."""
    rows = [
        {
            "customer_id": f"c{customer}",
            "type": "purchase",
            "at": NOW - timedelta(days=1 + 20 * visit + customer % 17, seconds=customer),
            "product_id": f"p{(customer * 7 + visit * 3) % 40}",
            "location": f"l{customer % 2}",
            "channel": "store",
        }
        for customer in range(120)
        for visit in range(6)
    ]
    return {
        "events": pl.DataFrame(rows),
        "products": pl.DataFrame({"product_id": [f"p{one}" for one in range(40)], "brand": ["A", "B"] * 20}),
        "promotions": pl.DataFrame(
            {
                "channel": ["mailer"],
                "location": ["l0"],
                "product_id": ["p0"],
                "starts": [NOW],
                "ends": [NOW + timedelta(days=7)],
            }
        ),
    }


def summary(folder: Path, tables: Tables) -> Summary:
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return summarise(open_dataset(str(folder), channels=CHANNELS, now=NOW), RECIPE, NOW)


def with_events(tables: Tables, **changed: pl.Expr) -> Tables:
    return tables | {"events": tables["events"].with_columns(**changed)}


def more_events(tables: Tables, **of: object) -> Tables:
    """A further event, which is the first one but for some columns."""
    first = tables["events"].head(1)
    return tables | {
        "events": pl.concat([tables["events"], first.with_columns(**{k: pl.lit(v) for k, v in of.items()})])
    }


def offers(**of: object) -> pl.DataFrame:
    row = {"offer_id": "o1", "products": ["p1"], "starts": NOW - timedelta(days=9), "ends": NOW + timedelta(days=9)}
    return pl.DataFrame([row | of])


def test_what_was_read_is_counted(tmp_path: Path) -> None:
    found = summary(tmp_path, sound())
    assert found.rows == {"products": 40, "events": 720, "promotions": 1}
    assert (found.customers, found.products, found.returning, found.types) == (120, 40, 120, {"purchase": 720})
    assert (found.first, found.last) == (NOW - timedelta(days=117, seconds=118), NOW - timedelta(days=1))
    assert sum(day.events for day in found.days) == 720
    assert found.left_out == {}
    assert [count for bound, count in found.gaps if bound == 30] == [120]  # every 20 days
    assert found.buyers[0] == (1, 18)


@pytest.mark.parametrize(("every", "counted_under"), [(7, 7), (14, 14), (8, 14), (400, 0)])
def test_days_between_purchases_are_counted_up_to_their_bound(tmp_path: Path, every: int, counted_under: int) -> None:
    tables = sound()
    first = pl.col("at").min().over("customer_id")
    nth = pl.col("at").rank("ordinal").over("customer_id") - 1
    tables["events"] = tables["events"].with_columns(at=first - nth.cast(pl.Int64) * timedelta(days=every))
    found = summary(tmp_path, tables)
    assert {bound: count for bound, count in found.gaps if count} == {counted_under: 120}


def test_of_sound_data_nothing_is_said(tmp_path: Path) -> None:
    assert summary(tmp_path, sound()).findings == ()


def mostly_early(tables: Tables) -> Tables:
    """A few events of many years ago."""
    first = tables["events"].head(9).with_columns(at=pl.lit(datetime(2000, 1, 1, tzinfo=UTC)))
    return tables | {"events": pl.concat([tables["events"], first])}


def first_lines_alone_named(tables: Tables) -> Tables:
    """Every purchase has two more lines in its order, which name no customer."""
    events = tables["events"].with_row_index("line").with_columns(visit=pl.format("o{}", "line")).drop("line")
    rest = events.with_columns(customer_id=pl.lit(None, pl.String), product_id=pl.lit("p1"))
    return tables | {"events": pl.concat([events, rest, rest.with_columns(product_id=pl.lit("p2"))])}


def lines_as_visits(tables: Tables) -> Tables:
    """Orders of three lines whose visits are the numbers of lines."""
    events = pl.concat(
        [tables["events"], *(tables["events"].with_columns(product_id=pl.lit(one)) for one in ("p1", "p2"))]
    )
    return tables | {"events": events.with_row_index("line").with_columns(visit=pl.format("o{}", "line")).drop("line")}


def viewed_by_other_ids(tables: Tables) -> Tables:
    views = tables["events"].with_columns(type=pl.lit("view"), product_id=pl.col("product_id") + "-page")
    return tables | {"events": pl.concat([tables["events"], views])}


def sessions(tables: Tables) -> Tables:
    """As many visitors as there were events, none of whom buys anything."""
    views = [
        tables["events"].with_columns(
            type=pl.lit("view"), customer_id=pl.format("s{}-{}", pl.lit(one), pl.int_range(pl.len()))
        )
        for one in range(2)
    ]
    return tables | {"events": pl.concat([tables["events"], *views])}


KINDS: dict[str, tuple[Callable[[Tables], Tables], int, str, str]] = {
    "few of long ago": (
        mostly_early,
        1,
        "the 9 events before that count as long past: leave them out if their times are wrong",
        "events.parquet, row 721: c0, purchase, 2000-01-01",
    ),
    "customers on first lines alone": (
        first_lines_alone_named,
        1,
        "720 visits have purchases of one customer and 1,440 that name none",
        "visit o",
    ),
    "lines for visits": (lines_as_visits, 1, "every one of 2,160 purchases names a visit of its own", ""),
    "other ids of what is viewed": (
        viewed_by_other_ids,
        1,
        "none of the 40 products bought is one of the 40 that were viewed or the like",
        "'p0' was bought, 'p0-page' was not",
    ),
    "sessions for customers": (sessions, 2, "120 of 1,560 (7.7%) customers bought anything", ""),
    "one day": (
        lambda t: with_events(t, at=pl.lit(NOW - timedelta(days=1))),
        1,
        "training would refuse this: expected purchases over at least 4 days; they span 0",
        "",
    ),
    "nothing that was bought": (
        lambda t: with_events(t, type=pl.lit("view")),
        1,
        "training would refuse this: expected purchases of products before the last 28 days until",
        "",
    ),
    "nobody who has a name": (
        lambda t: with_events(t, customer_id=pl.lit(None, pl.String)),
        1,
        "training would refuse this: expected purchases that name a customer_id; all are of guests",
        "",
    ),
    "four customers": (
        lambda t: t | {"events": t["events"].filter(pl.col("customer_id").is_in(["c0", "c1", "c2", "c3"]))},
        1,
        "training would refuse this: expected at least 5 customers who bought something before the last",
        "",
    ),
    "9999": (
        lambda t: more_events(t, at=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        2,
        "1 of 721 (0.1%) events lie at or after 2026-11-01 12:00 UTC; they count nowhere",
        "events.parquet, row 721: c0, purchase, 9999-12-31",
    ),
    "1970": (
        lambda t: more_events(t, at=datetime(1970, 1, 1, tzinfo=UTC)),
        2,
        "1 of 721 (0.1%) events lie before 1971",
        "events.parquet, row 721: c0, purchase, 1970-01-01",
    ),
    "a long silence": (
        lambda t: more_events(with_events(t, at=pl.col("at") - timedelta(days=200)), at=NOW - timedelta(days=1)),
        1,
        "200 days; the 1 events after that decide what is held out",
        "events.parquet, row 721: ",
    ),
    "days alone": (
        lambda t: with_events(t, at=pl.col("at").dt.truncate("1d")),
        3,
        "no event has a time finer than a day",
        "",
    ),
    "old": (lambda t: with_events(t, at=pl.col("at") - timedelta(days=200)), 3, "the newest event is 201 days old", ""),
    "a store without locations": (
        lambda t: t | {"events": t["events"].drop("location")},
        1,
        "channel store shows what the location carries, but no purchase names a location",
        "",
    ),
    "a mailer without promotions": (
        lambda t: with_events({"events": t["events"]}, channel=pl.lit("mailer")),
        1,
        "channel mailer shows what is promoted on it, but no promotion names it",
        "",
    ),
    "a channel nobody uses": (
        lambda t: {"events": t["events"]},
        3,
        "channels that no event uses will show nothing, for want of data: mailer",
        "",
    ),
    "products not listed": (
        lambda t: t | {"products": t["products"].filter(pl.col("product_id") != "p1")},
        3,
        "1 products are named by events and not listed in products.parquet, with 18 of 720 (2.5%)",
        "product_id p1",
    ),
    "many products not listed": (
        lambda t: t | {"products": t["products"].head(20), "promotions": t["promotions"]},
        1,
        "20 products are named by events and not listed",
        "product_id p",
    ),
    "ids as floats": (
        lambda t: (
            t
            | {
                "products": t["products"].with_columns(pl.col("product_id") + ".0"),
                "promotions": t["promotions"].clear(),
            }
        ),
        1,
        "40 ids of products are there in several forms",
        "'p0' and 'p0.0'; 'p1' and 'p1.0'",
    ),
    "ids with blanks": (
        lambda t: more_events(t, customer_id="c7 "),
        1,
        "1 ids of customers are there in several forms",
        "'c7' and 'c7 '",
    ),
    "ids in other letters": (lambda t: more_events(t, location="L1"), 1, "1 ids of locations", "'L1' and 'l1'"),
    "ids in another Unicode form": (
        lambda t: more_events(more_events(t, customer_id="caf\u00e9"), customer_id="cafe\u0301"),
        1,
        "1 ids of customers",
        "'caf",
    ),
    "a mark for no value": (
        lambda t: more_events(t, customer_id="NULL"),
        1,
        "1 of 121 (0.8%) ids of customers stand for no value where they come from",
        "customer_id 'NULL'",
    ),
    "a mark for no audience": (
        lambda t: t | {"offers": offers(audience="N/A")},
        1,
        "1 of 1 (100.0%) ids of audiences stand for no value",
        "audience 'N/A'",
    ),
    "a mark for no attribute": (
        lambda t: t | {"products": t["products"].with_columns(brand=pl.Series(["[null]", "B"] * 20))},
        2,
        "attribute brand of products has a text such as NULL in 20 of 40 (50.0%) rows",
        "",
    ),
    "blanks at an end": (
        lambda t: with_events(t, customer_id=pl.col("customer_id") + "  "),
        1,
        "120 of 120 (100.0%) ids of customers hold blanks at an end",
        "customer_id 'c0  '",
    ),
    "characters without width": (
        lambda t: more_events(t, customer_id="c\u200b7"),
        1,
        "1 of 121 (0.8%) ids of customers hold blanks at an end or characters that do not show",
        "customer_id 'c\\u200b7'",
    ),
    "all ids as floats": (
        lambda t: with_events(t, customer_id=pl.col("customer_id").str.slice(1) + ".0"),
        1,
        "120 of 120 (100.0%) ids of customers end in .0",
        "customer_id '0.0'",
    ),
    "offers of unknown products": (
        lambda t: {"events": t["events"], "promotions": t["promotions"], "offers": offers(products=["SKU-1"])},
        1,
        "offers name 1 of 1 (100.0%) products that no event and no table of products names: 'SKU-1'",
        "products 'SKU-1'",
    ),
    "a list of commas": (
        lambda t: {"events": t["events"], "promotions": t["promotions"], "offers": offers(products=["p1,p2"])},
        1,
        'entries of a list are separated by "|"',
        "products 'p1,p2'",
    ),
    "an offer of no length": (
        lambda t: t | {"offers": offers(starts=NOW + timedelta(1), ends=NOW + timedelta(1))},
        1,
        "1 of 1 (100.0%) offers end at the moment at which they start",
        "",
    ),
    "nothing may be shown": (
        lambda t: t | {"products": t["products"].with_columns(recommendable=pl.lit(value=False))},
        1,
        "40 of 40 (100.0%) products are not recommendable",
        "",
    ),
    "all is taken back": (
        lambda t: t | {"events": pl.concat([t["events"], t["events"].with_columns(type=pl.lit("return"))])},
        1,
        "720 returns stand beside 720 purchases",
        "",
    ),
    "promotions that are not needed": (
        lambda t: t | {"promotions": pl.concat([t["promotions"], t["promotions"].with_columns(channel=pl.lit("web"))])},
        2,
        'channel web is promoted on, but does not show by promotions; declare web = "promoted"',
        "",
    ),
    "guests": (
        lambda t: more_events(t, customer_id=None),
        3,
        "1 of 721 (0.1%) events name no customer; the 1 purchases among them count for what is popular, not for what",
        "",
    ),
    "guests with receipts": (
        lambda t: with_events(more_events(t, customer_id=None), visit=pl.format("v{}", pl.int_range(pl.len()))),
        3,
        "count for what is popular, and for what is bought together, and for no history",
        "",
    ),
    "numbers of receipts that are used again": (
        lambda t: with_events(t, visit=pl.lit("1")),
        2,
        "120 visits last longer than a day",
        "customer_id c",
    ),
    "an id for all who are not known": (
        lambda t: more_events(t, customer_id="GUEST"),
        1,
        "customers are called 'GUEST': if that is every guest, leave the field empty",
        "customer_id 'GUEST'",
    ),
    "one far above all others": (
        lambda t: t | {"events": pl.concat([t["events"], *[t["events"].head(1)] * 120])},
        1,
        "one customer has 126 of 840 (15.0%) events; is it an id of many",
        "customer_id c0",
    ),
    "guests alone": (
        lambda t: with_events(t, customer_id=pl.lit(None, pl.String)),
        2,
        "720 of 720 (100.0%) events name no customer; the 720 purchases among them",
        "",
    ),
    "days of another zone": (
        lambda t: with_events(t, at=pl.col("at").dt.truncate("1d")),
        3,
        "no event has a time finer than a day",
        "",
    ),
    "nothing that counts": (lambda t: with_events(t, at=pl.col("at") + timedelta(900)), 1, "no event counts", ""),
    "prices in thousands": (
        lambda t: (
            t | {"products": t["products"].with_columns(price=pl.Series(["1.250", "12.000", "3"] * 13 + ["1.000"]))}
        ),
        1,
        "column price of products.parquet: every value with a point has three digits after it",
        "'1.250'",
    ),
    "an export twice": (
        lambda t: t | {"events": pl.concat([t["events"], t["events"]])},
        1,
        "720 of 1,440 (50.0%) events repeat another one in everything; on ",
        "events.parquet, day 2026-07-",
    ),
    "a few twice": (
        lambda t: t | {"events": pl.concat([t["events"], t["events"].head(3)])},
        3,
        "3 of 723 (0.4%) events repeat another one in everything; each counts",
        "",
    ),
    "one for all guests": (
        lambda t: with_events(
            t, customer_id=pl.when(pl.int_range(pl.len()) % 6 < 2).then(pl.lit("0")).otherwise("customer_id")
        ),
        1,
        "one customer has 240 of 720 (33.3%) events; is it an id of many",
        "customer_id 0",
    ),
    "nobody comes back": (
        lambda t: with_events(t, customer_id=pl.format("n{}", pl.int_range(pl.len()))),
        2,
        "0 of 720 (0.0%) customers bought on more than one day",
        "",
    ),
    "views alone": (lambda t: with_events(t, type=pl.lit("view")), 1, "no event is a purchase of a product", ""),
    "few customers": (lambda t: t | {"events": t["events"].head(60)}, 2, "10 customers bought anything", ""),
    "an audience of nobody": (
        lambda t: t | {"offers": offers(audience="gold")},
        1,
        "audiences that no customer has: gold",
        "",
    ),
    "an audience for nothing": (
        lambda t: t | {"customers": pl.DataFrame({"customer_id": ["c1"], "audiences": [["gold"]]})},
        3,
        "audiences that no offer is meant for: gold",
        "",
    ),
    "customers of another system": (
        lambda t: t | {"customers": pl.DataFrame({"customer_id": ["x1", "x2"]})},
        1,
        "none of the 2 customers of customers.parquet has an event",
        "",
    ),
    "an attribute of one value": (
        lambda t: t | {"products": t["products"].with_columns(brand=pl.lit("A"))},
        2,
        "attribute brand of products has one value in all rows",
        "",
    ),
    "an attribute that is an id": (
        lambda t: t | {"products": t["products"].with_columns(brand=pl.col("product_id"))},
        2,
        "attribute brand of products has another value in every row",
        "",
    ),
    "an attribute without values": (
        lambda t: t | {"products": t["products"].with_columns(brand=pl.lit(None, pl.String))},
        2,
        "attribute brand of products has no value in any row",
        "",
    ),
    "offers of the past": (
        lambda t: t | {"offers": offers(ends=NOW)},
        2,
        "all 1 offers have ended",
        "",
    ),
    "offers that nobody redeemed": (lambda t: t | {"offers": offers()}, 2, "no event redeems an offer", ""),
    "offers named and not given": (
        lambda t: with_events(t, offer_id=pl.lit("o1")),
        2,
        "events name 1 offers, but there is no table of offers",
        "",
    ),
    "locations where nothing happens": (
        lambda t: t | {"locations": pl.DataFrame({"location": ["l0", "l1", "l2", "l3", "l4"]})},
        2,
        "3 of 5 (60.0%) locations have neither an event nor a product",
        "location l2",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_means_little_is_said_with_an_example(tmp_path: Path, kind: str) -> None:
    change, harm, said, example = KINDS[kind]
    found = summary(tmp_path, change(sound())).findings
    matching = [one for one in found if said in one.said]
    assert len(matching) == 1, found
    assert matching[0].harm == harm
    assert matching[0].example.startswith(example)
    assert bool(matching[0].example) == bool(example)


def test_what_lies_outside_of_time_moves_nothing(tmp_path: Path) -> None:
    odd = more_events(sound(), at=datetime(1970, 1, 1, tzinfo=UTC))
    odd = more_events(odd, at=datetime(9999, 12, 31, tzinfo=UTC))
    (tmp_path / "odd").mkdir()
    found, expected = summary(tmp_path / "odd", odd), summary(tmp_path, sound())
    assert (found.first, found.last, found.types, found.days) == (
        expected.first,
        expected.last,
        expected.types,
        expected.days,
    )
    assert found.left_out == {
        "before 1971, which stands for no date": 1,
        "at or after 2026-11-01 12:00 UTC": 1,
    }


def test_the_most_harmful_comes_first_in_lines_and_text(tmp_path: Path) -> None:
    tables = more_events(sound(), customer_id="c7 ") | {"offers": offers(audience="gold")}
    found = summary(tmp_path, tables)
    harms = [one.harm for one in found.findings]
    assert harms == sorted(harms)
    assert len(set(harms)) > 1
    lines, text = in_lines(found, harm=1), in_text(found)
    assert [one.said in "\n".join(lines) for one in found.findings] == [one.harm == 1 for one in found.findings]
    assert all(one.said in text and one.example in text for one in found.findings)


class _Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_draws_what_there_is_and_needs_nothing_else(tmp_path: Path) -> None:
    found = summary(tmp_path, more_events(sound(), customer_id="<script> "))
    found = replace(found, findings=(*found.findings, Finding(1, "a <b> & c", "<i>")))
    page = in_html("shop <1>", found)
    parsed = _Tags()
    parsed.feed(page)
    assert parsed.tags.count("svg") == 3
    assert parsed.outside == []
    assert not {"script", "i", "link", "img"} & set(parsed.tags)
    assert "url(" not in page
    assert re.search(r"a &lt;b&gt; &amp; c.*&lt;i&gt;", page)


@pytest.mark.parametrize(
    ("named", "harm"), [({}, 2), ({"type_attribute": "colour"}, 3), ({"type_attribute": "brand"}, 3)]
)
def test_attributes_that_the_recipe_does_not_name_are_said(tmp_path: Path, named: dict[str, str], harm: int) -> None:
    tables = sound()
    tables["products"] = tables["products"].with_columns(colour=pl.Series(["red", "blue"] * 20))
    for name, frame in tables.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    recipe = Recipe(channels=CHANNELS, ranker=msgspec.convert(named, RankerConfig))
    (found,) = summarise(open_dataset(str(tmp_path), channels=CHANNELS, now=NOW), recipe, NOW).findings
    assert found.harm == harm
    for name in {"brand", "colour"} - set(named.values()):
        assert name in found.said
    assert ("ranker.type_attribute" in found.said) == (not named)


def test_the_gap_between_visits_is_said_and_may_be_declared(tmp_path: Path) -> None:
    found = summary(tmp_path, sound())
    assert found.visit_pause == 0
    assert "all purchases of a customer at one moment are of one visit" in in_lines(found)
    declared = replace(RECIPE, visit_pause_minutes=90)
    found = summarise(open_dataset(str(tmp_path), channels=CHANNELS, now=NOW), declared, NOW)
    assert found.visit_pause == 5_400
    assert "all purchases of a customer at most 90 minutes after the one before are of one visit" in in_lines(found)


def test_what_events_say_of_their_situation_is_looked_at_as_attributes_are(tmp_path: Path) -> None:
    tables = with_events(sound(), weather=pl.lit("rain"), device=pl.lit(None, pl.String))
    tables = more_events(tables, at=NOW + timedelta(1), weather="sun")
    for name, frame in tables.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    config = TablesConfig(context_attributes=("weather", "device"))
    dataset = open_dataset(str(tmp_path), channels=CHANNELS, now=NOW, tables=config)
    said = [one.said for one in summarise(dataset, replace(RECIPE, tables=config), NOW, NOW).findings]
    assert "attribute weather of events has one value in all rows and tells nothing" in said
    assert "attribute device of events has no value in any row" in said
