"""The rules of ``embeddings.catalogue.tables`` on the rows of a table, as expressions on the table as it was given."""

from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from operator import and_
from typing import NamedTuple

import polars as pl

from embeddings.catalogue.context import CONTROL_CHARACTERS, EXPECTED_ID, LONGEST_ID
from embeddings.catalogue.tables import Column, Dtype, Table
from training.config import TablesConfig
from training.datasets.cast import DTYPES, cast_column, given_value, lies_in_years, shown_value
from training.datasets.frames import GivenTable, attributes_of_table

CHANNEL_COLUMNS = ("channel", "channels")
EXPECTED_TYPE = {
    "text": "text",
    "number": "a finite number",
    "time": "a time with its zone, such as 2017-12-05T10:00:00Z",
    "list": "a list of texts (in CSV separated by |)",
    "flag": "true or false",
}
_ZERO = (r"^0000-", "or nothing where there is no time")
_NAIVE = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?$"
_TAKEN_BACK = (
    (r"^-", 'or, where it was taken back, type return, or negative_quantities = "return" under [tables] in the recipe'),
)
_COMMA = r"^[+-]?\d+,\d+$"
_ADVICE: dict[Dtype, tuple[tuple[str, str], ...]] = {
    "time": (
        (r"^-?\d{8,}(?:\.\d+)?$", "of the years 1 to 9999, and not counted from 1970"),
        (r"^\d\d?[./-]\d\d?[./-]\d", "the year first, in four digits"),
    ),
    "number": (
        (r"^[+-]?\d{1,3}(?:[.,' ]\d{3})+(?:[.,]\d+)?$", "without marks between thousands"),
        (r"^\(.*\d\)$|\d-$|^\u2212", "a minus as - before the digits"),
        (r"(?i)^[(\[<#]?(?:nan|null|none|nil|na|n/a|inf|infinity|-)[)\]>]?$", "or nothing where there is no value"),
    ),
    "flag": ((r"(?i)^(?:0|1|y|n|yes|no|t|f)$", "1 and 0, yes and no are not read"),),
}
"""By type, what a value looks like that breaks it, and what to do."""


class Rule(NamedTuple):
    """One rule on one or more columns of a table.

    Attributes:
        columns: the columns it is about.
        expected: what every row should hold, as the end of a sentence.
        broken: true in the rows that break it; null counts as false.
        shown: the values a message quotes.
        advice: what the value that is shown may look like, as patterns, and what to do about that.
    """

    columns: tuple[str, ...]
    expected: str
    broken: pl.Expr
    shown: tuple[pl.Expr, ...]
    advice: tuple[tuple[str, str], ...] = ()

    def advised(self) -> "Iterator[Rule]":
        """Yield the rule for each way to break it that has its own advice, then for all other ways."""
        broken, text = self.broken, self.shown[0].cast(pl.String, strict=False)
        for pattern, what in self.advice:
            alike = broken & text.str.contains(pattern).fill_null(value=False)
            # The same rows are told of once: a pattern takes what those before it leave.
            broken &= ~alike
            yield self._replace(expected=f"{self.expected}; {what}", broken=alike)
        yield self._replace(broken=broken)


class Keys(NamedTuple):
    """The ids that a given table declares, and the file that declares them."""

    file: str
    ids: pl.Series


class Membership(NamedTuple):
    """A column all of whose values, or list entries, must be among the accepted ones.

    It is checked on the distinct entries, which are few, before any row is looked at.
    """

    column: Column
    value: pl.Expr
    accepted: pl.Series
    expected: str

    def entries(self) -> pl.Expr:
        """Return the distinct entries of the column, as one list."""
        each = self.value.explode() if self.column.dtype == "list" else self.value
        return each.drop_nulls().unique().implode()

    def strangers(self, entries: pl.Series) -> pl.Series:
        """Return the entries that are not accepted, except the empty ones, which break a rule of their own."""
        return entries.filter(~entries.is_in(self.accepted.implode()) & (entries != "")).sort()

    def rule(self, strangers: pl.Series) -> Rule:
        """Return the rule that the rows with one of these entries break; it shows just these entries."""
        accused = strangers.implode()
        if self.column.dtype == "list":
            entry = pl.element()
            broken = self.value.list.eval(entry.is_in(accused)).list.any()
            shown = self.value.list.eval(entry.filter(entry.is_in(accused)))
        else:
            broken, shown = self.value.is_in(accused), self.value
        return Rule((self.column.name,), self.expected, broken, (shown,))


def rules_of(given: GivenTable, values: Mapping[str, pl.Expr], memberships: Collection[Membership]) -> Iterator[Rule]:
    """Yield every declared rule on the usable columns, memberships excepted.

    Texts of a column with a membership need no rule of their own: the accepted ones are checked where they are
    declared. Nor do those that a database holds, which were checked when they came.
    """
    schema = given.frame.collect_schema()
    members = {one.column.name for one in memberships}
    raw = {name: given_value(name, schema[name]) for name in values}
    shown = {name: shown_value(name, schema[name]) for name in values}
    for column in given.table.columns:
        if column.name in values:
            name = column.name
            yield from _column_rules(column, raw[name], shown[name], values[name], given.config)
            if column.dtype in ("text", "list") and column.name not in members and not given.stored:
                yield from _id_rules(column, values[column.name])
    yield from _table_rules(given, raw, shown, values)
    for name in attributes_of_table(given):
        text = cast_column(name, "text", schema[name], given.config)
        if text is not None and given.table.takes_attribute(name):
            yield Rule((name,), "text without NUL characters", text.str.contains("\0", literal=True), (text,))


def memberships_of(
    given: GivenTable, values: Mapping[str, pl.Expr], keys: Mapping[str, Keys], channels: Collection[str]
) -> Iterator[Membership]:
    """Yield a membership for every column with values from a set.

    The set holds the texts that the column declares, the channels, or another table's keys.
    """
    table, config = given.table, given.config
    for column in table.columns:
        if column.name not in values:
            continue
        value = values[column.name]
        if column.one_of:
            yield Membership(column, value, _texts(column.one_of), "one of " + ", ".join(column.one_of))
        if column.name in CHANNEL_COLUMNS:
            declared = sorted(channels)
            expected = "a channel that the recipe declares: " + ", ".join(declared)
            yield Membership(column, value, _texts(declared), expected)
        if column.refers_to and column.refers_to[0] in keys and not _may_be_unlisted(table, column, config):
            referred, key = column.refers_to
            file, ids = keys[referred]
            yield Membership(column, value, ids, f"a {key} that {file} holds")


def _may_be_unlisted(table: Table, column: Column, config: TablesConfig) -> bool:
    """Return whether a column may name ids that the table it refers to does not list."""
    return config.unlisted_products == "keep" and (table.name, column.name) == ("events", "product_id")


def _texts(values: Collection[str]) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def _column_rules(column: Column, raw: pl.Expr, shown: pl.Expr, value: pl.Expr, config: TablesConfig) -> Iterator[Rule]:
    columns, expected, understood = (column.name,), EXPECTED_TYPE[column.dtype], value.is_not_null()
    advice = _ADVICE.get(column.dtype, ())
    if column.required and column.filled:
        yield Rule(columns, expected, raw.is_null(), (raw,))
    match column.dtype:
        case "number":
            understood = value.is_finite().fill_null(value=False)
            if config.decimal == ".":
                advice = (_COMMA, 'or, where commas stand for points, decimal = "," under [tables]'), *advice
        case "time":
            outside = understood & ~lies_in_years(value, DTYPES["time"])
            yield Rule(columns, "a time of the years 1 to 9999 in UTC", outside, (shown,))
            naive = "or, where all times are of one zone, time_zone under [tables] in the recipe"
            if config.time_zone:
                naive = f"or one that the clock of {config.time_zone} shows"
            advice = _ZERO, (_NAIVE, naive), *advice
        case "text":
            expected = "a whole number, as it is an id"
        case "list":
            empty = pl.element().is_null() | (pl.element() == "")
            yield Rule(columns, "no empty entry in the list", value.list.eval(empty).list.any(), (raw,))
        case "flag":
            pass
    yield Rule(columns, expected, raw.is_not_null() & ~understood, (shown,), advice)
    if column.dtype == "number" and (bounds := _bounds(column, value)):
        within = reduce(and_, bounds.values())
        advice = _TAKEN_BACK if column.name in ("quantity", "value") else ()
        yield Rule(columns, f"a number {' and '.join(bounds)}", understood & ~within, (shown,), advice)


def _id_rules(column: Column, value: pl.Expr) -> Iterator[Rule]:
    """Yield the rules by which texts must be ids at all, and ids that every route takes.

    See ``embeddings.catalogue.context.Identifier``.
    """
    of_list = column.dtype == "list"
    text = pl.element() if of_list else value
    for expected, broken in (
        (EXPECTED_ID, (text.str.len_chars() > LONGEST_ID) | text.str.contains(f"[{CONTROL_CHARACTERS}]")),
        ("all digits of the id; a spreadsheet has rounded it: format the column as text there", _rounded(text)),
        (
            "a list of entries separated by |, without brackets or blanks around them",
            _other_list(text, of_list=of_list),
        ),
    ):
        if of_list:
            shown = value.list.eval(text.filter(broken))
            yield Rule((column.name,), expected, value.list.eval(broken).list.any(), (shown,))
        else:
            yield Rule((column.name,), expected, broken, (value,))


def _rounded(text: pl.Expr) -> pl.Expr:
    # 4.00635E+12 of spreadsheets, 4.00635E12 of the JVM: 4E12 alone may be an id.
    return text.str.contains(r"^\d(?:[.,]\d+)?[Ee]\+\d\d+$|^\d[.,]\d+[Ee]\d+$")


def _other_list(text: pl.Expr, *, of_list: bool) -> pl.Expr:
    """Return whether entries show another way to write a list, always false for a text that is no list.

    The other ways are those of Python and JSON, of PostgreSQL, and with blanks around.
    """
    return text.str.contains(r"^[\[{].*[\]}]$|^[\[{]|[\]}]$|^\s|\s$") if of_list else pl.lit(value=False)


def _bounds(column: Column, value: pl.Expr) -> dict[str, pl.Expr]:
    """Return the declared bounds, in words and as expressions that are true within them."""
    bounds: dict[str, pl.Expr] = {}
    if column.above is not None:
        bounds[f"above {column.above:,.15g}"] = value > column.above
    if column.at_least is not None:
        bounds[f"of at least {column.at_least:,.15g}"] = value >= column.at_least
    if column.at_most is not None:
        bounds[f"of at most {column.at_most:,.15g}"] = value <= column.at_most
    if column.whole:
        bounds["without a fraction"] = value == value.floor()
    return bounds


def _table_rules(
    given: GivenTable, raw: Mapping[str, pl.Expr], shown: Mapping[str, pl.Expr], values: Mapping[str, pl.Expr]
) -> Iterator[Rule]:
    table, present = given.table, given.frame.collect_schema()
    if table.key is not None and table.key in values:
        value = values[table.key]
        repeated = value.is_not_null() & ~value.is_first_distinct()
        yield Rule((table.key,), f"every {table.key} only once", repeated, (raw[table.key],))
    for first, second in table.ordered:
        if first in values and second in values:
            reversed_ = values[first] > values[second]
            yield Rule((first, second), f"{first} not after {second}", reversed_, (shown[first], shown[second]))
    some = [name for name in table.any_of if name in present]
    # With one of an unsuitable type no row can be judged; having none of them is reported once, not by row.
    if some and all(name in values for name in some):
        nothing = pl.all_horizontal(raw[name].is_null() for name in some)
        yield Rule(tuple(some), "a value in at least one of them", nothing, tuple(raw[name] for name in some))
