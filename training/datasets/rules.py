"""What ``embeddings.tables`` demands of the rows of a table, as expressions on the table as it was given."""

from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from operator import and_
from typing import NamedTuple

import polars as pl

from embeddings.context import CONTROL_CHARACTERS, EXPECTED_ID, LONGEST_ID
from embeddings.tables import Column, Table
from training.config import TablesConfig
from training.datasets.frames import GivenTable, cast_column, given_value

CHANNEL_COLUMNS = ("channel", "channels")
EXPECTED_TYPE = {
    "text": "text",
    "number": "a finite number",
    "time": "a time with its zone, such as 2017-12-05T10:00:00Z",
    "list": "a list of texts (in CSV separated by |)",
    "flag": "true or false",
}
_EXPECTED_ZONE = EXPECTED_TYPE["time"] + "; or, where all times are of one zone, time_zone under [tables] in the recipe"
_NAIVE = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?$"


class Rule(NamedTuple):
    """One rule on one or more columns of a table.

    Attributes:
        columns: the columns it is about.
        expected: what every row should hold, as the end of a sentence.
        broken: true in the rows that break it; null counts as false.
        shown: the values a message quotes.
    """

    columns: tuple[str, ...]
    expected: str
    broken: pl.Expr
    shown: tuple[pl.Expr, ...]


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
        """The distinct entries of the column, as one list."""
        each = self.value.explode() if self.column.dtype == "list" else self.value
        return each.drop_nulls().unique().implode()

    def strangers(self, entries: pl.Series) -> pl.Series:
        """The entries that are not accepted, but the empty ones, which break a rule of their own."""
        return entries.filter(~entries.is_in(self.accepted.implode()) & (entries != "")).sort()

    def rule(self, strangers: pl.Series) -> Rule:
        """The rule that the rows with one of these entries break; it shows just these entries."""
        accused = strangers.implode()
        if self.column.dtype == "list":
            entry = pl.element()
            broken = self.value.list.eval(entry.is_in(accused)).list.any()
            shown = self.value.list.eval(entry.filter(entry.is_in(accused)))
        else:
            broken, shown = self.value.is_in(accused), self.value
        return Rule((self.column.name,), self.expected, broken, (shown,))


def usable_values(given: GivenTable) -> dict[str, pl.Expr]:
    """The declared columns that are there with a suitable type, each cast to it."""
    schema = given.frame.collect_schema()
    return {
        column.name: value
        for column in given.table.columns
        if column.name in schema
        and (value := cast_column(column.name, column.dtype, schema[column.name], given.config)) is not None
    }


def rules_of(given: GivenTable, values: Mapping[str, pl.Expr], memberships: Collection[Membership]) -> Iterator[Rule]:
    """Every declared rule on the usable columns, memberships excepted.

    Texts of a column with a membership need no rule of their own: those accepted are checked where they are declared.
    """
    schema = given.frame.collect_schema()
    members = {one.column.name for one in memberships}
    raw = {name: given_value(name, schema[name]) for name in values}
    for column in given.table.columns:
        if column.name in values:
            yield from _column_rules(column, raw[column.name], values[column.name])
            if column.dtype in ("text", "list") and column.name not in members:
                yield from _id_rules(column, values[column.name])
    yield from _table_rules(given.table, raw, values, set(schema))


def memberships_of(
    given: GivenTable, values: Mapping[str, pl.Expr], keys: Mapping[str, Keys], channels: Collection[str]
) -> Iterator[Membership]:
    """Every column with values from a set: texts that it declares, the channels, or another table's keys."""
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
    """Whether a column may name what the table that it refers to does not list."""
    return config.unlisted_products == "keep" and (table.name, column.name) == ("events", "product_id")


def _texts(values: Collection[str]) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def _column_rules(column: Column, raw: pl.Expr, value: pl.Expr) -> Iterator[Rule]:
    columns, expected = (column.name,), EXPECTED_TYPE[column.dtype]
    if column.required:
        yield Rule(columns, expected, raw.is_null(), (raw,))
    if column.dtype == "number":
        finite = value.is_finite().fill_null(value=False)
        yield Rule(columns, expected, raw.is_not_null() & ~finite, (raw,))
        if bounds := _bounds(column, value):
            within = reduce(and_, bounds.values())
            yield Rule(columns, f"a number {' and '.join(bounds)}", finite & ~within, (raw,))
    if column.dtype == "time":
        wrong = raw.is_not_null() & value.is_null()
        naive = raw.cast(pl.String, strict=False).str.contains(_NAIVE).fill_null(value=False)
        yield Rule(columns, _EXPECTED_ZONE, wrong & naive, (raw,))
        yield Rule(columns, expected, wrong & ~naive, (raw,))
    if column.dtype == "flag":
        yield Rule(columns, expected, raw.is_not_null() & value.is_null(), (raw,))
    if column.dtype == "text":
        yield Rule(columns, "a whole number, as it is an id", raw.is_not_null() & value.is_null(), (raw,))
    if column.dtype == "list":
        empty = pl.element().is_null() | (pl.element() == "")
        yield Rule(columns, "no empty entry in the list", value.list.eval(empty).list.any(), (raw,))


def _id_rules(column: Column, value: pl.Expr) -> Iterator[Rule]:
    """Texts must be ids that every route takes, and ids at all: see ``embeddings.context.Identifier``."""
    of_list = column.dtype == "list"
    text = pl.element() if of_list else value
    for expected, broken in (
        (EXPECTED_ID, (text.str.len_chars() > LONGEST_ID) | text.str.contains(f"[{CONTROL_CHARACTERS}]")),
        ("all digits of the id; a spreadsheet has rounded it: format the column as text there", _rounded(text)),
    ):
        if of_list:
            shown = value.list.eval(text.filter(broken))
            yield Rule((column.name,), expected, value.list.eval(broken).list.any(), (shown,))
        else:
            yield Rule((column.name,), expected, broken, (value,))


def _rounded(text: pl.Expr) -> pl.Expr:
    return text.str.contains(r"^\d(?:[.,]\d+)?E\+\d\d+$")


def _bounds(column: Column, value: pl.Expr) -> dict[str, pl.Expr]:
    """The declared bounds, in words and as expressions that are true within them."""
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
    table: Table, raw: Mapping[str, pl.Expr], values: Mapping[str, pl.Expr], present: Collection[str]
) -> Iterator[Rule]:
    if table.key is not None and table.key in values:
        value = values[table.key]
        repeated = value.is_not_null() & ~value.is_first_distinct()
        yield Rule((table.key,), f"every {table.key} only once", repeated, (raw[table.key],))
    for first, second in table.ordered:
        if first in values and second in values:
            reversed_ = values[first] > values[second]
            yield Rule((first, second), f"{first} not after {second}", reversed_, (raw[first], raw[second]))
    some = [name for name in table.any_of if name in present]
    # With one of an unsuitable type no row can be judged; having none of them is reported once, not by row.
    if some and all(name in values for name in some):
        nothing = pl.all_horizontal(raw[name].is_null() for name in some)
        yield Rule(tuple(some), "a value in at least one of them", nothing, tuple(raw[name] for name in some))
