"""Counts the contents of a data set."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from embeddings.catalogue.tables import EARLIEST, EVENTS, PRODUCTS
from training.config import Recipe, check_attributes
from training.datasets import open_dataset
from training.datasets.database import Source
from training.datasets.files import reading
from training.datasets.finding import Counted, Finding
from training.datasets.findings import find_all
from training.datasets.frames import Dataset, GivenTable, as_given, attribute_names
from training.datasets.lacking import lacking
from training.datasets.targets import with_targets
from training.datasets.visits import moments_of_purchases, usual_pause

_GAP_DAYS = (1, 2, 4, 7, 14, 30, 60, 120, 365)


class Count(Struct, frozen=True):
    """How many events there were on a day, or how many of a kind."""

    name: str
    events: int


class Summary(Struct, frozen=True):
    """What was read.

    Attributes:
        rows: by table, of those given.
        first, last: the moments of the oldest and of the newest event that counts.
        customers, products: how many distinct ones events name.
        returning: how many customers bought on several days.
        types: events by type.
        days: events by day, in the order of time.
        buyers: how many purchases each product has, the most first, at a few places of that list.
        gaps: how many customers came back after so many days on average, by upper bound; 0 stands for any more.
        left_out: how many events do not count, by why.
        named_visits: how many purchases say of which visit they are.
        visit_pause: another purchase at most so many seconds after the customer's one before is of its visit.
        findings: the most harmful first.
        lacking: what keeps training from it; empty where nothing does.
    """

    rows: dict[str, int]
    first: datetime | None
    last: datetime | None
    customers: int
    products: int
    returning: int
    types: dict[str, int]
    days: list[Count]
    buyers: list[tuple[int, int]]
    gaps: list[tuple[int, int]]
    left_out: dict[str, int]
    named_visits: int
    visit_pause: int
    findings: tuple[Finding, ...]
    lacking: str


def summarise(dataset: Dataset, recipe: Recipe, now: datetime, until: datetime | None = None) -> Summary:
    """Summarise a checked data set.

    Args:
        dataset: all of it.
        recipe: the settings.
        now: the present moment, with its zone. Later events are reported.
        until: the data cut-off in place of it. Events at or after it do not show.
    """
    moment, declared = until or now, recipe.visit_pause_minutes
    counted = _count(dataset, moment, tell_later=until is None)
    events = int(counted.kinds["events"].sum()) + sum(counted.left_out.values())
    bought = counted.products.filter(pl.col("bought") > 0)["bought"].sort(descending=True)
    types = counted.kinds.group_by("type").agg(pl.col("events").sum()).sort("events", "type", descending=[True, False])
    return Summary(
        rows={one.table.name: events if one.table.name == "events" else _height(one) for one in dataset.given},
        first=min(counted.kinds["first"], default=None),
        last=max(counted.kinds["last"], default=None),
        customers=counted.customers.height,
        products=counted.products.height,
        returning=int((counted.customers["days"] > 1).sum()),
        types=dict(types.iter_rows()),
        days=[Count(day.isoformat(), events) for day, events in counted.days.select("day", "events").iter_rows()],
        buyers=[(place + 1, int(bought[place])) for place in _places(bought.len())],
        gaps=_gaps(counted.customers),
        left_out={why: count for why, count in counted.left_out.items() if count},
        named_visits=int(counted.kinds.filter(pl.col("type") == "purchase")["of visits"].sum()),
        visit_pause=counted.pause if declared == "auto" else round(declared * 60),
        findings=find_all(as_given(dataset), counted, recipe, moment, until),
        lacking=next(lacking(counted, recipe, until), ""),
    )


class Opened(NamedTuple):
    """A data set whose events of the target types are purchases, its summary, and the recipe that names these types."""

    dataset: Dataset
    summary: Summary
    recipe: Recipe


def open_and_summarise(source: Source, recipe: Recipe, until: datetime | None) -> Opened:
    """Open a data set as a recipe declares it, check all of it and return it with its summary.

    Args:
        source: the tables, from `tables_of`.
        recipe: the settings.
        until: the data cut-off; None for the present moment.

    Raises:
        InvalidInput, InvalidTables: the data or the recipe cannot be used.
    """
    now = datetime.now(UTC)
    dataset = open_dataset(
        source.data, channels=recipe.channels, now=now, tables=recipe.tables, stored=source.marks is not None
    )
    dataset = dataset._replace(notes=(*source.notes, *dataset.notes))
    check_attributes(recipe, attribute_names(dataset.products, PRODUCTS))
    with reading(dataset.given):
        dataset, targets = with_targets(dataset, recipe.targets)
        recipe = replace(recipe, targets=targets)
        return Opened(dataset, summarise(dataset, recipe, now, until), recipe)


def _count(dataset: Dataset, moment: datetime, *, tell_later: bool) -> Counted:
    at = pl.col("at")
    zone = next(one.config.time_zone for one in dataset.given if one.table is EVENTS) or "UTC"
    events = dataset.events.filter(at.is_between(EARLIEST, moment, closed="left"))
    bought = (pl.col("type") == "purchase") & pl.col("product_id").is_not_null()
    day = pl.col("at").dt.date()
    own = ("customer_id", "type", "at", "product_id", "offer_id", "location", "channel", "visit", "quantity", "value")
    frames = (
        events.group_by("type", "channel", pl.col("location").is_null().alias("nowhere")).agg(
            pl.len().alias("events"),
            pl.col("at").min().alias("first"),
            pl.col("at").max().alias("last"),
            pl.col("visit").count().alias("of visits"),
        ),
        events.drop_nulls("product_id")
        .group_by("product_id")
        .agg(pl.len().alias("events"), bought.sum().alias("bought")),
        events.drop_nulls("customer_id")
        .group_by("customer_id")
        .agg(
            pl.len().alias("events"),
            bought.sum().alias("bought"),
            day.filter(bought).n_unique().alias("days"),
            pl.col("at").filter(bought).min().alias("first"),
            pl.col("at").filter(bought).max().alias("last"),
        ),
        events.group_by(day.alias("day")).agg(
            pl.len().alias("events"),
            pl.col("customer_id").count().alias("named"),
            pl.struct(own).hash().filter(pl.col("customer_id").is_not_null()).n_unique().alias("distinct"),
            (pl.col("at").dt.convert_time_zone(zone).dt.time() == pl.time(0, 0, 0)).sum().alias("midnight"),
        ),
        events.drop_nulls("location").group_by("location").agg(pl.len().alias("events")),
        events.drop_nulls("offer_id").group_by("offer_id").agg(pl.len().alias("events")),
        events.filter(pl.col("customer_id").is_null()).select(
            pl.len().alias("events"), bought.sum().alias("bought"), pl.col("visit").count().alias("of visits")
        ),
        events.filter(bought)
        .drop_nulls("visit")
        .group_by("customer_id", "visit", pl.when(pl.col("customer_id").is_null()).then("location").alias("where"))
        .agg(pl.col("at").min().alias("first"), pl.col("at").max().alias("last"))
        .filter(pl.col("last") - pl.col("first") > timedelta(days=1)),
        events.filter(bought)
        .drop_nulls("visit")
        .group_by("visit", "location", day)
        .agg(
            pl.col("customer_id").null_count().alias("unnamed"),
            pl.col("customer_id").drop_nulls().n_unique().alias("owners"),
        )
        .filter((pl.col("unnamed") > 0) & (pl.col("owners") == 1))
        .select(pl.len().alias("visits"), pl.col("unnamed").sum(), pl.col("visit").first()),
        events.filter(bought)
        .drop_nulls(["visit", "customer_id"])
        .select(
            pl.len().alias("lines"),
            pl.struct("customer_id", "visit").n_unique().alias("visits"),
            pl.struct("customer_id", "at").n_unique().alias("moments"),
        ),
        moments_of_purchases(events),
    )
    outside = dataset.events.select((at < EARLIEST).sum().alias("early"), (at >= moment).sum().alias("late"))
    *found, guests, visits, partly_named, lines, bought_at, out = pl.collect_all([*frames, outside], engine="streaming")
    kinds, products, customers, days, locations, offers = found
    early, late = out.row(0)
    left_out = {
        f"before {EARLIEST:%Y}, which stands for no date": early,
        f"at or after {moment:%Y-%m-%d %H:%M} UTC": late if tell_later else 0,
    }
    return Counted(
        kinds,
        products,
        customers,
        days.sort("day"),
        locations,
        offers,
        guests.row(0),
        visits,
        partly_named.row(0),
        lines.row(0),
        usual_pause(bought_at),
        left_out,
    )


def _height(given: GivenTable) -> int:
    if given.parts:
        return sum(part.rows for part in given.parts)
    return given.frame.select(pl.len()).collect(engine="streaming").item()


def _places(size: int) -> list[int]:
    """Return at most some forty places of a list, closer together where it begins."""
    return sorted({min(int(place), size - 1) for place in np.geomspace(1, size, 40) - 1}) if size else []


def _gaps(customers: pl.DataFrame) -> list[tuple[int, int]]:
    """Return how many customers come back after so many days on average, by the bounds of ``_GAP_DAYS``, inclusive."""
    back = customers.filter(pl.col("days") > 1)
    mean = ((back["last"] - back["first"]).dt.total_seconds() / 86_400 / (back["days"] - 1)).to_numpy()
    counts = np.bincount(np.searchsorted(_GAP_DAYS, mean), minlength=len(_GAP_DAYS) + 1)
    return list(zip((*_GAP_DAYS, 0), counts.tolist(), strict=True))
