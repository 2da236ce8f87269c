"""Checks the given tables against every declared rule and says all that is wrong, in sentences."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from itertools import chain

import polars as pl

from embeddings.context import CONTROL_CHARACTERS
from embeddings.errors import InvalidTables
from embeddings.tables import TABLES, Dtype
from training.datasets.frames import Dataset, GivenTable, cast_column
from training.datasets.rules import EXPECTED_TYPE, Keys, Rule, memberships_of, rules_of, usable_values

_CONTROL = re.compile(f"[{CONTROL_CHARACTERS}]")
SHOWN_ROWS = 20
SHOWN_CHARACTERS = 80


def validate(dataset: Dataset, channels: Collection[str]) -> None:
    """Check every rule on every table that was given; the channels are those that the recipe declares.

    Each table is read once to count what is wrong; rows are looked up only where a count is not zero.

    Raises:
        InvalidTables: with all problems: of each file, column and rule the first 20 rows, then the count.
    """
    names = {one.table.name for one in dataset.given}
    absent = [
        "; ".join(
            [f"{table.name}: the table is missing, expected {table.name}.parquet or {table.name}.csv", *dataset.unused]
        )
        for table in TABLES
        if table.required and table.name not in names
    ]
    referred = {column.refers_to[0] for table in TABLES for column in table.columns if column.refers_to}
    keys = {one.table.name: ids for one in dataset.given if one.table.name in referred and (ids := _keys(one))}
    problems = [*absent, *chain.from_iterable(_problems(one, keys, channels) for one in dataset.given)]
    if problems:
        raise InvalidTables(problems)


def unreadable(file: str, error: pl.exceptions.PolarsError) -> str:
    """The sentence for a file that is not what its name says."""
    expected = "UTF-8 text separated by commas" if file.endswith(".csv") else "Parquet"
    first_line = str(error).partition("\n")[0]
    return f"{file}: cannot be read ({first_line}), expected {expected} with the same columns in every row"


def _keys(given: GivenTable) -> Keys | None:
    """The keys of a table; None where they cannot be read, which the checks of that table report."""
    value = usable_values(given).get(given.table.key or "")
    if value is None:
        return None
    try:
        return Keys(given.file, given.frame.select(value).collect(engine="streaming").to_series())
    except pl.exceptions.PolarsError:
        return None


def _problems(given: GivenTable, keys: Mapping[str, Keys], channels: Collection[str]) -> Iterator[str]:
    yield from _column_problems(given)
    try:
        yield from _row_problems(given, keys, channels)
    except pl.exceptions.PolarsError as error:
        yield unreadable(given.file, error)


def _column_problems(given: GivenTable) -> Iterator[str]:
    table, file, schema = given.table, given.file, given.frame.collect_schema()
    declared = {column.name: column for column in table.columns}
    for name, column in declared.items():
        expected = EXPECTED_TYPE[column.dtype]
        if name not in schema:
            if column.required:
                yield f"{file}: column {name} is missing, expected {expected}{_spelt_otherwise(name, schema)}"
        elif cast_column(name, column.dtype, schema[name], given.config) is None:
            advice = _advice(schema[name], column.dtype)
            yield f"{file}, column {name}: the type is {schema[name]}, expected {expected}{advice}"
    if table.any_of and not any(name in schema for name in table.any_of):
        yield f"{file}: columns {', '.join(table.any_of)} are missing, expected at least one of them"
    for name in schema:
        if name in declared:
            continue
        if not table.attributes:
            meant = _did_you_mean(name, declared)
            yield f"{file}: column {name} is unknown, expected only {', '.join(declared)}{meant}"
        elif cast_column(name, "text", schema[name], given.config) is None or _is_fractional(schema[name]):
            advice = _advice(schema[name], "text")
            yield f"{file}, column {name}: the type is {schema[name]}, expected text, as in every attribute{advice}"


def _did_you_mean(name: str, declared: Collection[str]) -> str:
    close = get_close_matches(name.casefold(), declared, 1, 0.8)
    return f"; did you mean {close[0]}?" if close else ""


def _spelt_otherwise(name: str, given: Collection[str]) -> str:
    found = [one for one in given if one.casefold() == name]
    return f"; the file has {found[0]}" if found else ""


def _advice(given: pl.DataType, to: Dtype) -> str:
    """What to do about a column of an unsuitable type."""
    if to == "time" and isinstance(given, pl.Datetime | pl.Date):
        return "; or, where all times are of one zone, time_zone under [tables] in the recipe (Spark's INT96 are UTC)"
    if to == "text" and (given.is_float() or _is_fractional(given)):
        return "; as whole numbers or text where it is an id, in a few ranges such as 10-20 where it is a quantity"
    if to == "text" and isinstance(given, pl.List):
        return "; choose one of each list, join it to one text, or leave the column out"
    return ""


def _is_fractional(given: pl.DataType) -> bool:
    return isinstance(given, pl.Decimal) and given.scale > 0


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
        yield from _broken_rows(given, rule, found[f"rule {i}"][0])
    for i, membership in enumerate(memberships):
        strangers = membership.strangers(found[f"membership {i}"].explode().drop_nulls())
        if not strangers.is_empty():
            rule = membership.rule(strangers)
            count = given.frame.select(rule.broken.sum()).collect(engine="streaming").item()
            yield from _broken_rows(given, rule, count)


def _broken_rows(given: GivenTable, rule: Rule, count: int) -> Iterator[str]:
    if count == 0:
        return
    columns = ("column " if len(rule.columns) == 1 else "columns ") + ", ".join(rule.columns)
    rows = (
        given.frame.with_row_index("row", offset=1)
        .filter(rule.broken)
        .head(SHOWN_ROWS)
        .select("row", *(value.alias(f"value {i}") for i, value in enumerate(rule.shown)))
        .collect(engine="streaming")
    )
    for row, *shown in rows.iter_rows():
        quoted = ", ".join(map(_quoted, shown))
        yield f"{given.place(row)}, {columns}: {quoted}, expected {rule.expected}"
    if count > SHOWN_ROWS:
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
