"""Finds ids that are probably not what their owner means, and ids that nothing else names."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from training.datasets.finding import RARE, Counted, Finding, share, some
from training.datasets.frames import Dataset, GivenTable

_PAIRS, _TIMES = 3, 10
_NO_VALUE = r"(?i)^\s*(?:[(\[<#]?(?:null|nil|none|nan|nat|na|n/a|nv|value!|ref!|undefined)[)\]>]?|\\N|-+)\s*$"
"""What exports write for no value."""
_MANY = r"(?i)^(?:guest|guests|anonymous|anon|unknown|nobody|0|-1)$"
"""What stands for every customer who is not known."""
_UNSEEN = r"^\s|\s$|[\u{ad}\u{200b}-\u{200f}\u{2060}\u{feff}]"
"""Blanks at an end, and characters without width anywhere."""
_FRACTION = r"^-?\d+\.0+$"


class _Ids(NamedTuple):
    """The ids of one kind.

    Attributes:
        name: how they are called.
        key: their column.
        listed: those of their table; empty where there is none.
        known: those and the ones that events name, each once.
    """

    name: str
    key: str
    listed: pl.DataFrame
    known: pl.DataFrame


def find_in_ids(dataset: Dataset, counted: Counted) -> Iterator[Finding]:
    """Yield the findings about the ids of customers, products, locations, offers and audiences.

    Args:
        dataset: checked.
        counted: its events.
    """
    given = {one.table.name: one for one in dataset.given}
    kinds = {one.name: one for one in _kinds(dataset, counted)}
    for one in kinds.values():
        yield from _alike(one)
        yield from _odd(one)
    yield from _many(kinds["customers"], counted.customers)
    yield from _unlisted(kinds["products"], counted.products, given, rare=1)
    yield from _unlisted(kinds["customers"], counted.customers, given, rare=3)
    yield from _named_by_tables(dataset, kinds)


def means_nothing(text: pl.Expr) -> pl.Expr:
    """Return whether a text stands for no value, as exports write it."""
    return text.str.contains(_NO_VALUE)


def _kinds(dataset: Dataset, counted: Counted) -> Iterator[_Ids]:
    for name, key, table, found in (
        ("products", "product_id", dataset.products, counted.products),
        ("customers", "customer_id", dataset.customers, counted.customers),
        ("locations", "location", dataset.locations, counted.locations),
        ("offers", "offer_id", dataset.offers, counted.offers),
    ):
        listed = table.select(key).collect()
        yield _Ids(name, key, listed, pl.concat([listed, found.select(key)]).unique())
    audiences = pl.concat(
        [
            dataset.customers.select(pl.col("audiences").explode().alias("audience")),
            dataset.offers.select("audience"),
        ]
    )
    known = audiences.drop_nulls().unique().collect()
    yield _Ids("audiences", "audience", known, known)


def _alike(ids: _Ids) -> Iterator[Finding]:
    form = pl.col(ids.key).str.normalize("NFKC").str.replace_all(_UNSEEN, "").str.strip_chars().str.to_lowercase()
    form = form.str.replace(r"\.0+$", "").str.replace_all(r"\s+", " ")
    alike = (
        ids.known.group_by(form.alias("form"))
        .agg(pl.col(ids.key).sort(), pl.len().alias("forms"))
        .filter(pl.col("forms") > 1)
        .sort("form")
    )
    if not alike.is_empty():
        pairs = "; ".join(" and ".join(repr(one) for one in group[:2]) for group in alike[ids.key][:_PAIRS].to_list())
        said = (
            f"{alike.height:,} ids of {ids.name} are there in several forms that differ only by blanks, case, .0 or "
            "Unicode form, and count as different ones; write them one way"
        )
        yield Finding(1, said, pairs)


def _odd(ids: _Ids) -> Iterator[Finding]:
    whole = ids.known.height
    for pattern, said in (
        (_NO_VALUE, "stand for no value where they come from, and count as one id here; leave such fields empty"),
        (_UNSEEN, "hold blanks at an end or characters that do not show; whoever asks must write them so, too"),
        (_FRACTION, "end in .0, as where whole numbers were kept as floats; whoever asks must write them so, too"),
    ):
        odd = ids.known.filter(pl.col(ids.key).str.contains(pattern))[ids.key].sort().to_list()
        if odd:
            names = some([repr(one) for one in odd])
            yield Finding(1, f"{share(len(odd), whole)} ids of {ids.name} {said}: {names}", f"{ids.key} {odd[0]!r}")


def _many(customers: _Ids, counted: pl.DataFrame) -> Iterator[Finding]:
    named = pl.col(customers.key).str.contains(_MANY)
    found = customers.known.filter(named)[customers.key].sort().to_list()
    # The first of customers numbered from 0 is called 0, too, and does as much as others.
    usual, many = (np.median(one["events"].to_numpy()) if one.height else 0 for one in (counted, counted.filter(named)))
    if found and (found != ["0"] or many > _TIMES * usual):
        names = some([repr(one) for one in found])
        said = f"customers are called {names}: if that is every guest, leave the field empty, or all are one customer"
        yield Finding(1, said, f"{customers.key} {found[0]!r}")


def _unlisted(ids: _Ids, found: pl.DataFrame, given: Mapping[str, GivenTable], *, rare: int) -> Iterator[Finding]:
    if ids.name not in given:
        return
    missing = found.join(ids.listed, on=ids.key, how="anti").sort("events", ids.key, descending=[True, False])
    if not missing.is_empty():
        events, whole = int(missing["events"].sum()), int(found["events"].sum())
        said = (
            f"{missing.height:,} {ids.name} are named by events and not listed in {given[ids.name].file}, with "
            f"{share(events, whole)} of the events that name one; they are kept without attributes"
        )
        yield Finding(rare if events > whole * RARE else 3, said, f"{ids.key} {missing[ids.key][0]}")


def _named_by_tables(dataset: Dataset, kinds: Mapping[str, _Ids]) -> Iterator[Finding]:
    """Yield findings about ids that tables name, but that no table lists and no event names."""
    for name, frame, column, of in (
        ("offers", dataset.offers, "products", "products"),
        ("offers", dataset.offers, "locations", "locations"),
        ("products", dataset.products, "locations", "locations"),
        ("promotions", dataset.promotions, "product_id", "products"),
        ("promotions", dataset.promotions, "location", "locations"),
    ):
        ids = kinds[of]
        is_list = frame.collect_schema()[column] == pl.List(pl.String)
        value = pl.col(column).explode() if is_list else pl.col(column)
        named = frame.select(value.alias(ids.key)).drop_nulls().unique().collect(engine="streaming")
        unknown = named.join(ids.known, on=ids.key, how="anti").sort(ids.key)[ids.key].to_list()
        if unknown:
            joined = is_list and any(mark in one for one in unknown for mark in ",;")
            said = (
                f"{name} name {share(len(unknown), named.height)} {of} that no event and no table of {of} names: "
                f"{some([repr(one) for one in unknown])}"
            )
            if joined:
                said += '; in text, entries of a list are separated by "|"'
            yield Finding(1 if joined or len(unknown) > named.height / 2 else 2, said, f"{column} {unknown[0]!r}")
