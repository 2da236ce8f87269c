"""Finds what of a data set is worth less than its owner may think.

All of it passes the checks: it is no error, yet a model learns nothing from it, or something else than it says.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import polars as pl

from embeddings.catalog import ChannelRule
from training.datasets.finding import RARE, Counted, Finding, share
from training.datasets.frames import EARLIEST, Dataset, GivenTable
from training.datasets.rules import usable_values
from training.datasets.table_findings import find_in_tables

_FEW_CUSTOMERS, _FEW_PRODUCTS = 100, 20
_SHARE_OF_ONE = 0.2
_DUPLICATES = 0.02
_REPEATED_ROWS = 40
_LONG_GAP = 0.25
_OLD_DAYS = 60


def find_all(
    dataset: Dataset, counted: Counted, channels: Mapping[str, ChannelRule], moment: datetime
) -> tuple[Finding, ...]:
    """Return all findings, the most harmful first.

    Args:
        dataset: checked.
        counted: its events.
        channels: what each channel shows.
        moment: the present one, or the data cut-off, with its zone.
    """
    events = next(one for one in dataset.given if one.table.name == "events")
    found = [
        *_times(counted, events, moment),
        *_shown_nothing(dataset, counted, channels),
        *_repeated(counted, events),
        *_sizes(counted),
        *find_in_tables(dataset, counted, moment),
        *(Finding(2, sentence) for sentence in dataset.unused),
    ]
    return tuple(sorted(found, key=lambda one: one.harm))


def _example(given: GivenTable, broken: pl.Expr) -> str:
    """The first row of a table for which something holds, as it was given."""
    values = usable_values(given)
    found = (
        given.frame.with_row_index("row", offset=1)
        .with_columns(value.alias(f"cast {name}") for name, value in values.items())
        .filter(broken)
        .head(1)
        .select("row", *values)
        .collect(engine="streaming")
    )
    if found.is_empty():
        return ""
    row, *cells = found.row(0)
    return f"{given.place(row)}: {', '.join(str(cell) for cell in cells if cell is not None)}"


def _times(counted: Counted, given: GivenTable, moment: datetime) -> Iterator[Finding]:
    at, total = pl.col("cast at"), int(counted.kinds["events"].sum()) + sum(counted.left_out.values())
    for (why, count), broken in zip(counted.left_out.items(), (at < EARLIEST, at >= moment), strict=True):
        if count:
            said = f"{share(count, total)} events lie {why}; they count nowhere"
            yield Finding(1 if count > total * RARE else 2, said, _example(given, broken))
    days = counted.days["day"]
    if days.len() < 2:
        return
    gaps = days.diff().drop_nulls()
    longest, whole = gaps.max(), days[-1] - days[0]
    if isinstance(longest, timedelta) and longest > max(timedelta(days=30), whole * _LONG_GAP):
        place = int(gaps.arg_max() or 0)
        after = int(counted.days["events"][place + 1 :].sum())
        said = (
            f"no event lies between {days[place]} and {days[place + 1]}, {longest.days} days; the {after:,} events "
            "after that decide what is held out to judge the model: leave them out with --until if they are wrong"
        )
        yield Finding(1, said, _example(given, at.dt.date() >= days[place + 1]))
    if int(counted.days["midnight"].sum()) == int(counted.days["events"].sum()):
        yield Finding(3, "no event has a time finer than a day: hours say nothing, and all of a day is one visit")
    age = (moment.date() - days[-1]).days
    if age > _OLD_DAYS:
        yield Finding(3, f"the newest event is {age} days old: what is popular now is not in the data")


def _shown_nothing(dataset: Dataset, counted: Counted, channels: Mapping[str, ChannelRule]) -> Iterator[Finding]:
    bought_somewhere = not counted.kinds.filter((pl.col("type") == "purchase") & ~pl.col("nowhere")).is_empty()
    declared = bool(dataset.products.select((pl.col("locations").list.len() > 0).any()).collect().item())
    promoted = set(dataset.promotions.select(pl.col("channel").unique()).collect()["channel"].to_list())
    used = set(counted.kinds["channel"].drop_nulls().to_list())
    unused: list[str] = []
    for channel, rule in channels.items():
        if rule is ChannelRule.ASSORTMENT and not bought_somewhere and not declared:
            why = "shows what the location carries, but no purchase names a location and no product its locations"
            what = f'give events their location, or declare {channel} = "everything" under [channels] in the recipe'
        elif rule is ChannelRule.PROMOTED and channel not in promoted:
            why = "shows what is promoted on it, but no promotion names it"
            what = f'give the table of promotions, or declare {channel} = "everything" under [channels] in the recipe'
        else:
            continue
        if channel in used:
            yield Finding(1, f"channel {channel} {why}: it will show nothing; {what}")
        else:
            unused.append(channel)
    if unused:
        yield Finding(3, f"channels that no event uses will show nothing, for want of data: {', '.join(unused)}")


def _repeated(counted: Counted, given: GivenTable) -> Iterator[Finding]:
    days = counted.days
    copies, whole = int((days["events"] - days["distinct"]).sum()), int(days["events"].sum())
    if not copies:
        return
    doubled = days.filter(pl.col("events") >= 2 * pl.col("distinct"))
    said = f"{share(copies, whole)} events repeat another one in everything"
    if int(doubled["events"].sum()) >= _REPEATED_ROWS:
        first, last = doubled["day"].min(), doubled["day"].max()
        said += (
            f"; on {doubled.height:,} days, from {first} to {last}, every event is there at least twice, as if an "
            "export had been added twice: remove the copies"
        )
        yield Finding(1, said, f"{given.file}, day {first}")
    else:
        yield Finding(2 if copies > whole * _DUPLICATES else 3, said + "; each counts")


def _sizes(counted: Counted) -> Iterator[Finding]:
    customers, products = counted.customers, counted.products
    buyers = customers.filter(pl.col("bought") > 0)
    if buyers.height < _FEW_CUSTOMERS:
        yield Finding(
            2, f"{buyers.height:,} customers bought anything; figures of fewer than {_FEW_CUSTOMERS} move by chance"
        )
    if products.height < _FEW_PRODUCTS:
        yield Finding(2, f"events name {products.height:,} products; of so few a list of ten shows nearly all")
    events, most = int(customers["events"].sum()), customers.sort("events", descending=True).head(1)
    if customers.height >= _FEW_CUSTOMERS and int(most["events"][0]) > events * _SHARE_OF_ONE:
        said = (
            f"one customer has {share(int(most['events'][0]), events)} events; is it an id of many, such as of guests?"
        )
        yield Finding(1, said, f"customer_id {most['customer_id'][0]}")
    returning = int((buyers["days"] > 1).sum())
    if buyers.height and returning < buyers.height * RARE:
        said = (
            f"{share(returning, buyers.height)} customers bought on more than one day: recommendations rest on what "
            "is popular and bought together rather than on histories"
        )
        yield Finding(2, said)
    if not buyers.height:
        kinds = ", ".join(counted.kinds["type"].unique().sort().to_list())
        yield Finding(1, f"no event is a purchase of a product; types are {kinds}, and purchases are what is learnt")
