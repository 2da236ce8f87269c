"""Finds data in a data set that are worth less than their owner may think.

All of them pass the checks: they are no errors, yet a model learns nothing from them, or something else than they say.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl

from embeddings.catalogue.columns import ChannelRule
from embeddings.catalogue.tables import EARLIEST, PRODUCTS
from training.config import Recipe
from training.datasets.finding import RARE, Counted, Finding, share, some
from training.datasets.frames import Dataset, GivenTable, attribute_names, first_rows, usable_values
from training.datasets.id_findings import find_in_ids
from training.datasets.lacking import lacking
from training.datasets.table_findings import find_in_tables

_FEW_CUSTOMERS, _FEW_PRODUCTS = 100, 20
_SHARE_OF_ONE, _TIMES = 0.2, 10
_DUPLICATES = 0.02
_REPEATED_ROWS = 40
_LONG_GAP = 0.25
_JOINED = 0.8
_OLD_DAYS = 60
_RARE_BUYERS = 0.1
_GROUP_KEYS = "type_attribute", "category_attribute", "maker_attribute"


def find_all(
    dataset: Dataset, counted: Counted, recipe: Recipe, moment: datetime, until: datetime | None
) -> tuple[Finding, ...]:
    """Return all findings, the most harmful first.

    Args:
        dataset: checked.
        counted: its events.
        recipe: the settings.
        moment: the present one, or the data cut-off, with its zone.
        until: the data cut-off, if there is one.
    """
    events = next(one for one in dataset.given if one.table.name == "events")
    found = [
        *(Finding(1, f"training would refuse this: {why}") for why in lacking(counted, recipe, until)),
        *_times(counted, events, moment),
        *_shown_nothing(dataset, counted, recipe.channels),
        *_repeated(counted, events),
        *_sizes(counted),
        *_groups(dataset, recipe),
        *_visits(counted),
        *find_in_ids(dataset, counted),
        *find_in_tables(dataset, counted, moment),
        *(Finding(2, sentence) for sentence in dataset.unused),
    ]
    return tuple(sorted(found, key=lambda one: one.harm))


def _example(given: GivenTable, chosen: pl.Expr) -> str:
    """Return the first chosen row of a table, with its place; empty if there is none."""
    values = usable_values(given)
    found = next(first_rows(given, chosen, values.values(), 1), None)
    if found is None:
        return ""
    row, *cells = found
    return f"{given.place(row)}: {', '.join(str(cell) for cell in cells if cell is not None)}"


def _times(counted: Counted, given: GivenTable, moment: datetime) -> Iterator[Finding]:
    total = int(counted.kinds["events"].sum()) + sum(counted.left_out.values())
    at = usable_values(given)["at"]
    for (why, count), broken in zip(counted.left_out.items(), (at < EARLIEST, at >= moment), strict=True):
        if count:
            said = f"{share(count, total)} events lie {why}; they count nowhere"
            if why.startswith("at or after"):
                said += ". Of what is booked ahead, give the moment of the booking"
            yield Finding(1 if count > total * RARE else 2, said, _example(given, broken))
    days, events = counted.days["day"], counted.days["events"]
    if days.len() < 2:
        return
    gaps = days.diff().drop_nulls()
    longest, whole = gaps.max(), days[-1] - days[0]
    if isinstance(longest, timedelta) and longest > max(timedelta(days=30), whole * _LONG_GAP):
        place = int(gaps.arg_max() or 0)
        before, after = (int(part.sum()) for part in (events[: place + 1], events[place + 1 :]))
        said = f"no event lies between {days[place]} and {days[place + 1]}, {longest.days} days; "
        if after <= before:
            said += (
                f"the {after:,} events after that decide what is held out to judge the model: leave them out with "
                "--until if they are wrong"
            )
            few = at.dt.date() >= days[place + 1]
        else:
            said += f"the {before:,} events before that count as long past: leave them out if their times are wrong"
            few = (at.dt.date() <= days[place]) & (at >= EARLIEST)
        yield Finding(1, said, _example(given, few & (at < moment)))
    if int(counted.days["midnight"].sum()) == int(counted.days["events"].sum()):
        yield Finding(
            3, "no event has a time finer than a day: hours say nothing; give visit, if a day may hold several"
        )
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
            if rule is not ChannelRule.PROMOTED and channel in promoted:
                yield Finding(
                    2,
                    f"channel {channel} is promoted on, but does not show by promotions; declare {channel} = "
                    '"promoted" under [channels] in the recipe, or leave these promotions out',
                )
            continue
        if channel in used:
            yield Finding(1, f"channel {channel} {why}: it will show nothing; {what}")
        else:
            unused.append(channel)
    if unused:
        yield Finding(3, f"channels that no event uses will show nothing, for want of data: {', '.join(unused)}")


def _repeated(counted: Counted, given: GivenTable) -> Iterator[Finding]:
    days = counted.days
    copies, whole = int((days["named"] - days["distinct"]).sum()), int(days["named"].sum())
    if not copies:
        return
    doubled = days.filter((pl.col("named") >= 2 * pl.col("distinct")) & (pl.col("named") > 0))
    said = f"{share(copies, whole)} events repeat another one in everything"
    if int(doubled["named"].sum()) >= _REPEATED_ROWS:
        first, last = doubled["day"].min(), doubled["day"].max()
        said += (
            f"; on {doubled.height:,} days, from {first} to {last}, every event is there at least twice, as if an "
            "export had been added twice: remove the copies"
        )
        yield Finding(1, said, f"{given.file}, day {first}")
    else:
        yield Finding(2 if copies > whole * _DUPLICATES else 3, said + "; each counts")


def _visits(counted: Counted) -> Iterator[Finding]:
    guests, bought, of_visits = counted.guests
    if guests:
        whole = int(counted.kinds["events"].sum())
        together = (
            "and for what is bought together" if of_visits else "not for what is bought together, for want of visit"
        )
        yield Finding(
            3 if guests < whole / 2 else 2,
            f"{share(guests, whole)} events name no customer; the {bought:,} purchases among them count for what is "
            f"popular, {together}, and for no history",
        )
    visits, unnamed, example = counted.partly_named
    if visits:
        yield Finding(
            1,
            f"{visits:,} visits have purchases of one customer and {unnamed:,} that name none, which count as a "
            "guest's: if only the first line of an order names its customer, fill the others",
            f"visit {example}",
        )
    lines, named, moments = counted.lines
    if lines >= _FEW_CUSTOMERS and named == lines and moments < lines * _JOINED:
        yield Finding(
            1,
            f"every one of {lines:,} purchases names a visit of its own, though customers bought at {moments:,} "
            "moments alone: is visit the number of a line, and not that of the order?",
        )
    if not counted.long_visits.is_empty():
        customer, visit = counted.long_visits.sort("first").select("customer_id", "visit").row(0)
        yield Finding(
            2,
            f"{counted.long_visits.height:,} visits last longer than a day: are their numbers used again, or do they "
            "stand for no value? No visit lasts a day; what comes later with its number is another one",
            f"customer_id {customer}, visit {visit}",
        )


def _groups(dataset: Dataset, recipe: Recipe) -> Iterator[Finding]:
    """Yield a finding if keys of the recipe name absent attributes of products while others go unnamed."""
    names = attribute_names(dataset.products, PRODUCTS)
    named = {f"ranker.{key}": getattr(recipe.ranker, key) for key in _GROUP_KEYS}
    keys = {key: name for key, name in named.items() if name and name not in names}
    unnamed = sorted(set(names) - set(named.values()) - _telling_nothing(dataset.products, names))
    if keys and unnamed:
        said = (
            f"products have no attribute {' or '.join(keys.values())}, by which the ranker tells groups; name one of "
            f"{some(unnamed)} in the recipe as {' or '.join(keys)}, the narrowest as the type"
        )
        yield Finding(2 if len(keys) == len(_GROUP_KEYS) else 3, said)


def _telling_nothing(products: pl.LazyFrame, names: Sequence[str]) -> set[str]:
    """Return the attributes that have a single value, or a different one in each row."""
    if not names:
        return set()
    held = products.select(
        *(pl.col(name).drop_nulls().n_unique().alias(f"values {name}") for name in names),
        *(pl.col(name).count().alias(f"filled {name}") for name in names),
    ).collect(engine="streaming")
    counts = {name: (held[f"values {name}"][0], held[f"filled {name}"][0]) for name in names}
    return {name for name, (values, filled) in counts.items() if values <= 1 or values == filled}


def _apart(counted: Counted) -> Iterator[Finding]:
    """Yield findings if ids in purchases never meet, or rarely meet, those in other events."""
    products, customers = counted.products, counted.customers
    bought = products.filter(pl.col("bought") > 0)
    looked = products.filter(pl.col("events") > pl.col("bought"))
    both = bought.filter(pl.col("events") > pl.col("bought"))
    if bought.height >= _FEW_PRODUCTS and looked.height >= _FEW_PRODUCTS and both.is_empty():
        yield Finding(
            1,
            f"none of the {bought.height:,} products bought is one of the {looked.height:,} that were viewed or the "
            "like: are their ids the same?",
            f"{bought['product_id'].sort()[0]!r} was bought, {looked['product_id'].sort()[0]!r} was not",
        )
    buyers = int((customers["bought"] > 0).sum())
    if customers.height >= _FEW_CUSTOMERS and 0 < buyers < customers.height * _RARE_BUYERS:
        yield Finding(
            2,
            f"{share(buyers, customers.height)} customers bought anything: if the others are sessions or devices, name "
            "the customer in their events where it is known",
        )


def _sizes(counted: Counted) -> Iterator[Finding]:
    customers, products = counted.customers, counted.products
    buyers = customers.filter(pl.col("bought") > 0)
    if buyers.height < _FEW_CUSTOMERS:
        yield Finding(
            2, f"{buyers.height:,} customers bought anything; figures of fewer than {_FEW_CUSTOMERS} move by chance"
        )
    if products.height < _FEW_PRODUCTS:
        yield Finding(2, f"events name {products.height:,} products; of so few a list of ten shows nearly all")
    events, most = int(customers["events"].sum()), customers.sort("events", descending=True).head(2)
    alone = most.height > 1 and int(most["events"][0]) > max(
        events * RARE, int(most["events"][1]) * _TIMES, _FEW_CUSTOMERS
    )
    shared = customers.height >= _FEW_CUSTOMERS and int(most["events"][0]) > events * _SHARE_OF_ONE
    if alone or shared:
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
    if counted.kinds.is_empty():
        yield Finding(1, "no event counts: nothing can be learnt")
    types = dict(counted.kinds.group_by("type").agg(pl.col("events").sum()).sort("type").iter_rows())
    if types and not products["bought"].sum():
        yield Finding(
            1, f"no event is a purchase of a product; types are {', '.join(types)}, and purchases are what is learnt"
        )
    yield from _apart(counted)
    returned, bought = types.get("return", 0), int(products["bought"].sum())
    if returned > bought / 2:
        yield Finding(1, f"{returned:,} returns stand beside {bought:,} purchases, and take back what they find")
