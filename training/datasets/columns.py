"""Checks which columns the given tables have, and of which types, and says what they may have been meant to be."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

import polars as pl

from embeddings.catalogue.tables import EVENTS, Dtype, Table
from training.datasets.cast import cast_column
from training.datasets.finding import some
from training.datasets.frames import GivenTable, attributes_of_table
from training.datasets.rules import EXPECTED_TYPE

_USUAL = {
    "at": (
        "timestamp",
        "time",
        "date",
        "datetime",
        "eventtime",
        "createdat",
        "orderdate",
        "invoicedate",
        "ts",
        "eventtimestamp",
    ),
    "type": ("event", "eventtype", "eventname", "action"),
    "customer_id": ("userid", "clientid", "memberid", "visitorid", "householdid", "customer", "user", "userpseudoid"),
    "product_id": ("itemid", "articleid", "sku", "asin", "stockcode", "product", "item", "movieid"),
    "offer_id": ("couponid", "promotionid", "campaignid", "offer", "coupon"),
    "location": ("storeid", "shopid", "locationid", "store", "shop", "branch"),
    "value": ("amount", "revenue", "total", "sales", "price"),
    "quantity": ("qty", "units", "count"),
    "visit": (
        "basketid",
        "basket",
        "orderid",
        "order",
        "invoice",
        "invoiceno",
        "receiptid",
        "receipt",
        "transactionid",
        "transid",
        "visitid",
        "sessionid",
        "gasessionid",
    ),
}
"""What other systems call a column, in small letters and digits alone."""
_CLOSE = 0.85
_SITUATION = (
    "; leave it out, or name it in context_attributes under [tables] in the recipe if it says in what situation an "
    "event happened"
)
_ABSENT = "; from guests alone no ranking is learnt"


def column_problems(given: GivenTable) -> Iterator[str]:
    """Yield a sentence for each column that is missing, unknown, or of a type that it cannot have."""
    table, file, schema = given.table, given.file, given.frame.collect_schema()
    declared = {column.name: column for column in table.columns}
    others = {name: _meant(name, table) for name in schema if name not in declared}
    if _has_no_header(given):
        yield (
            f"{file}: no column has a name that a table of {table.name} has, but {some(list(schema))}; is the header "
            "missing?"
        )
        return
    yield from _declared_problems(given, others)
    if table.any_of and not any(name in schema for name in table.any_of):
        yield f"{file}: columns {', '.join(table.any_of)} are missing, expected at least one of them"
    yield from _context_problems(given)
    attributes = set(attributes_of_table(given))
    for name, meant in others.items():
        free = meant if meant and meant not in schema else ""
        shown = name if name.strip() and name.isprintable() else repr(name)
        if name not in attributes:
            asked = f"; did you mean {free}?" if free else ""
            asked = asked or (_SITUATION if table is EVENTS else "")
            yield f"{file}: column {shown} is unknown, expected only {', '.join(declared)}{asked}"
        elif not table.takes_attribute(name):
            yield f"{file}: column {shown} cannot be an attribute; expected a name of letters and digits"
        elif table.attributes and free and not declared[free].required:
            yield (
                f"{file}: column {name} would be an attribute; expected {free}, or a name that is less like it where "
                "it is not meant"
            )
        else:
            yield from _attribute_problems(given, name, schema[name])


def _has_no_header(given: GivenTable) -> bool:
    """Return whether the names of columns look like the values of a row."""
    names = given.frame.collect_schema().names()
    known = {column.name for column in given.table.columns}
    return (
        not known & set(names)
        and not any(_meant(name, given.table) for name in names)
        and any(name[:1].isdigit() for name in names)
    )


def _context_problems(given: GivenTable) -> Iterator[str]:
    """Yield a sentence for each name in ``context_attributes`` that is wrong."""
    if given.table is not EVENTS:
        return
    names = [column.name for column in EVENTS.columns]
    schema = given.frame.collect_schema()
    for name in given.config.context_attributes:
        if given.config.context_attributes.count(name) > 1:
            yield f"{given.file}: column {name} is named twice in context_attributes, expected every name once"
            return
        if name in names:
            yield f"{given.file}: column {name} is declared already, expected another name in context_attributes"
        elif name not in schema:
            yield f"{given.file}: column {name} is missing, which the recipe names in context_attributes"


def _attribute_problems(given: GivenTable, name: str, dtype: pl.DataType) -> Iterator[str]:
    if cast_column(name, "text", dtype, given.config) is None or _is_fractional(dtype):
        advice = _advice(dtype, "text")
        if dtype.is_float() or _is_fractional(dtype):
            advice += ", in a few ranges such as 10-20 where it is a quantity"
        yield f"{given.file}, column {name}: the type is {dtype}, expected text, as in every attribute{advice}"


def _declared_problems(given: GivenTable, others: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each declared column that is missing or of an unsuitable type.

    ``others`` maps the other columns to the declared ones that they may be meant to be.
    """
    file, schema = given.file, given.frame.collect_schema()
    for column in given.table.columns:
        name, expected = column.name, EXPECTED_TYPE[column.dtype]
        if name not in schema:
            if column.required:
                found = [other for other, meant in others.items() if meant == name]
                asked = f"; is it what the file calls {found[0]}?" if found else ""
                asked = asked or (_ABSENT if not column.filled else "")
                yield f"{file}: column {name} is missing, expected {expected}{asked}"
        elif cast_column(name, column.dtype, schema[name], given.config) is None:
            advice = _advice(schema[name], column.dtype)
            yield f"{file}, column {name}: the type is {schema[name]}, expected {expected}{advice}"


def _meant(name: str, table: Table) -> str:
    """Return the declared column that another name may stand for; empty if there is none."""
    plain = _plain(name)
    names = {_plain(column.name): column.name for column in table.columns}
    if close := get_close_matches(plain, names, 1, _CLOSE):
        return names[close[0]]
    key = table.key if plain == "id" else None
    return key or next((column.name for column in table.columns if _is_usual(plain, column.name, table)), "")


def _is_usual(plain: str, column: str, table: Table) -> bool:
    # A name that other systems use is asked about where the column must be there; elsewhere it may be an attribute.
    return plain in _USUAL.get(column, ()) and (not table.attributes or column == table.key)


def _plain(name: str) -> str:
    return "".join(one for one in name.casefold() if one.isalnum())


def _advice(given: pl.DataType, to: Dtype) -> str:
    """Return advice about a column of an unsuitable type; empty if there is none."""
    advice = ""
    if to == "time" and isinstance(given, pl.Datetime | pl.Date):
        advice = "or, where all times are of one zone, time_zone under [tables] in the recipe (Spark's INT96 are UTC)"
    elif to == "time" and given.is_numeric():
        advice = "cast what counts from 1970 to a timestamp of UTC where you write the file"
    elif to == "text" and (given.is_float() or _is_fractional(given)):
        advice = "as whole numbers or text where it is an id"
    elif isinstance(given, pl.Array) or (to == "list" and isinstance(given, pl.List)):
        advice = "write it as a list of texts"
    elif to == "text" and isinstance(given, pl.List):
        advice = "choose one of each list, join it to one text, or leave the column out"
    elif to == "text" and (given == pl.Binary() or given.is_temporal() or given.is_nested()):
        advice = "write it as text, or leave the column out"
    elif to == "flag" and given.is_integer():
        advice = "write 1 as true and 0 as false"
    return advice and f"; {advice}"


def _is_fractional(given: pl.DataType) -> bool:
    return isinstance(given, pl.Decimal) and given.scale > 0
