"""Checks the given tables against every declared rule and reports every problem, in sentences."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from itertools import chain

import polars as pl

from embeddings.catalogue.context import CONTROL_CHARACTERS
from embeddings.catalogue.tables import TABLES
from embeddings.errors import InvalidTables
from training.datasets.columns import column_problems
from training.datasets.files import UNREADABLE, unreadable
from training.datasets.frames import Dataset, GivenTable, usable_values
from training.datasets.rules import Keys, Rule, memberships_of, rules_of

_CONTROL = re.compile(f"[{CONTROL_CHARACTERS}]")
SHOWN_ROWS = 20
SHOWN_CHARACTERS = 80


def validate(dataset: Dataset, channels: Collection[str], *, whole: bool = True) -> None:
    """Check every rule on every table that was given.

    Each table is read once to count what is wrong; rows are looked up only where a count is not zero.

    Args:
        dataset: its tables.
        channels: those that the recipe declares.
        whole: whether required tables must be there; otherwise any one table will do.

    Raises:
        InvalidTables: with all problems: of each file, column and rule the first 20 values with their first rows, then
        the count.
    """
    names = {one.table.name for one in dataset.given}
    absent = [
        "; ".join(
            [
                (
                    f"{table.name}: the table is missing, expected {table.name}.parquet, {table.name}.csv or "
                    f"{table.name}.csv.gz"
                ),
                *dataset.unused,
            ]
        )
        for table in TABLES
        if table.required and table.name not in names and (whole or not names)
    ]
    referred = {column.refers_to[0] for table in TABLES for column in table.columns if column.refers_to}
    keys = {one.table.name: ids for one in dataset.given if one.table.name in referred and (ids := _keys(one))}
    problems = [*absent, *chain.from_iterable(_problems(one, keys, channels) for one in dataset.given)]
    if problems:
        raise InvalidTables(problems)


def _keys(given: GivenTable) -> Keys | None:
    """Return the keys of a table; None if they cannot be read, which the checks of that table report."""
    value = usable_values(given).get(given.table.key or "")
    if value is None:
        return None
    try:
        return Keys(given.file, given.frame.select(value).collect(engine="streaming").to_series())
    except UNREADABLE:
        return None


def _problems(given: GivenTable, keys: Mapping[str, Keys], channels: Collection[str]) -> Iterator[str]:
    yield from column_problems(given)
    try:
        yield from _row_problems(given, keys, channels)
    except UNREADABLE as error:
        yield unreadable(given.file, error)


def _row_problems(given: GivenTable, keys: Mapping[str, Keys], channels: Collection[str]) -> Iterator[str]:
    values = usable_values(given)
    memberships = list(memberships_of(given, values, keys, channels))
    rules = list(rules_of(given, values, memberships))
    found = given.frame.select(
        pl.len().alias("rows"),
        *(rule.broken.sum().alias(f"rule {i}") for i, rule in enumerate(rules)),
        *(one.entries().alias(f"membership {i}") for i, one in enumerate(memberships)),
    ).collect(engine="streaming")
    listed = sum(part.rows for part in given.parts)
    if given.parts and found["rows"][0] != listed:
        yield (
            f"{given.file}: {found['rows'][0]:,} rows were read of {listed:,} that it holds; expected all; please "
            "report this with the file's first lines"
        )
    if given.table.required and found["rows"][0] == 0:
        yield f"{given.file}: the table is empty, expected at least one row"
    for i, rule in enumerate(rules):
        if found[f"rule {i}"][0]:
            yield from _broken_rows(given, rule)
    for i, membership in enumerate(memberships):
        strangers = membership.strangers(found[f"membership {i}"].explode().drop_nulls())
        if not strangers.is_empty():
            yield from _broken_rows(given, membership.rule(strangers))


def _broken_rows(given: GivenTable, rule: Rule) -> Iterator[str]:
    """Yield sentences for the first rows that break a rule and for their number, by each way that has advice."""
    ways = list(rule.advised())
    counts = given.frame.select(way.broken.sum().alias(str(i)) for i, way in enumerate(ways)).collect(
        engine="streaming"
    )
    for way, count in zip(ways, counts.row(0), strict=True):
        if count:
            yield from _told(given, way, count)


def _told(given: GivenTable, rule: Rule, count: int) -> Iterator[str]:
    columns = ("column " if len(rule.columns) == 1 else "columns ") + ", ".join(rule.columns)
    shown = {f"value {i}": value for i, value in enumerate(rule.shown)}
    found = given.frame.select(rule.broken.alias("chosen"), **shown).with_row_index("row", offset=1).filter("chosen")
    by_value = found.group_by(*shown).agg(pl.col("row").min(), pl.len().alias("rows")).sort("row").head(SHOWN_ROWS)
    told = 0
    for *values, row, rows in by_value.collect(engine="streaming").iter_rows():
        quoted = ", ".join(map(_quoted, values)) + (f" in {rows:,} rows, this the first" if rows > 1 else "")
        yield f"{given.place(row)}, {columns}: {quoted}, expected {rule.expected}"
        told += rows
    if count > told:
        yield f"{given.file}, {columns}: {count:,} such rows in all, expected {rule.expected}"


def _quoted(value: object) -> str:
    if value is None:
        return "no value"
    if isinstance(value, datetime):
        return value.isoformat()
    text = "|".join("" if entry is None else str(entry) for entry in value) if isinstance(value, list) else str(value)
    text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS] + "…"
    return f"'{text}'" if isinstance(value, str | list) else text
