"""Columns in their declared types, whatever they were read as."""

import polars as pl

from embeddings.catalogue.tables import Dtype
from training.config import TablesConfig

DTYPES: dict[Dtype, pl.DataType] = {
    "text": pl.String(),
    "number": pl.Float64(),
    "time": pl.Datetime("us", "UTC"),
    "list": pl.List(pl.String()),
    "flag": pl.Boolean(),
}
"""The Polars type of every declared type. Attributes are text."""

TEXTUAL = (pl.String, pl.Categorical, pl.Enum)
_YEARS = -62_135_596_800, 253_402_300_800
"""The first second of the year 1 and that of the year 10000, counted from 1970 in UTC: Python has no others."""
_UNITS = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

LIST_SEPARATOR = "|"
RFC_3339 = "%+"
_SPELLINGS = (
    (r"^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d) ?([Zz]|UTC|[+-])", "${1}:00${2}"),
    (r"^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d+)?) ?", "${1}T${2}"),
    (r"(?:[Zz]|UTC)$", "+00:00"),
    (r"([+-]\d\d)$", "${1}:00"),
    (r"([+-]\d\d)(\d\d)$", "${1}:${2}"),
)
"""What makes RFC 3339 of a moment as PostgreSQL and others write it: 2026-11-15 15:36:20+00."""
_YEAR_FIRST = r"^\d{4}-"
_NAIVE = "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d"


def cast_column(name: str, to: Dtype, given: pl.DataType, config: TablesConfig) -> pl.Expr | None:
    """Return the column in its declared type; None where the type given is unsuitable.

    Values that cannot be understood are null, as is empty text. Text is read as a number, a moment with its zone, or a
    list separated by ``|``. Whole numbers and truth values are read as text. A moment without a zone is one of the zone
    that the recipe declares for such. Without that declaration it is unsuitable, as is a floating-point number as text.
    """
    value = pl.col(name)
    if given == DTYPES["time"] and to == "time":
        return value  # as it is, so that a filter on it can move on to where the rows come from
    if given == pl.Null():
        return value.cast(DTYPES[to])
    if isinstance(given, TEXTUAL):
        return _from_text(_filled(value.cast(pl.String)), to, config)
    return _from_typed(value, to, given, config)


def given_value(name: str, given: pl.DataType) -> pl.Expr:
    """Return the column as it was given, with empty text as null."""
    return _filled(pl.col(name).cast(pl.String)) if isinstance(given, TEXTUAL) else pl.col(name)


def shown_value(name: str, given: pl.DataType) -> pl.Expr:
    """Return the column as a message can show it.

    Moments are shown as text, those of years that Python does not know as a count.
    """
    if isinstance(given, pl.Datetime | pl.Date):
        moment = pl.col(name)
        written = pl.when(lies_in_years(moment, given)).then(moment).dt.to_string("iso:strict")
        return pl.coalesce(written, moment.to_physical().cast(pl.String))
    return given_value(name, given)


def _from_typed(value: pl.Expr, to: Dtype, given: pl.DataType, config: TablesConfig) -> pl.Expr | None:
    cast: pl.Expr | None = None
    match to:
        case "text" if given.is_integer() or given == pl.Boolean():
            cast = value.cast(pl.String)
        case "text" if isinstance(given, pl.Decimal):
            written = value.cast(pl.String).str.replace(r"\.0+$", "")
            cast = pl.when(~written.str.contains(".", literal=True)).then(written)
        case "flag" if given == pl.Boolean():
            cast = value
        case "number" if given.is_numeric():
            cast = value.cast(pl.Float64)
        case "time" if isinstance(given, pl.Datetime) and given.time_zone is not None:
            cast = _of_years(value, given).dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        case "time" if isinstance(given, pl.Datetime | pl.Date) and config.time_zone:
            cast = _in_zone(_of_years(value, given).cast(pl.Datetime("us")), config.time_zone)
        case "list" if isinstance(given, pl.List) and (
            isinstance(given.inner, (*TEXTUAL, pl.Null)) or given.inner.is_integer()
        ):
            cast = value.cast(pl.List(pl.String))
        case _:
            pass
    return cast


def _filled(text: pl.Expr) -> pl.Expr:
    return pl.when(text != "").then(text)


def _from_text(text: pl.Expr, to: Dtype, config: TablesConfig) -> pl.Expr:
    match to:
        case "text":
            return text
        case "number" if config.decimal == ",":
            # A point may only group thousands there: what holds one could be either.
            plain = pl.when(~text.str.contains(".", literal=True)).then(text)
            return plain.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        case "number":
            return text.cast(pl.Float64, strict=False)
        case "time":
            return _moment(text, config)
        case "list":
            return text.str.split(LIST_SEPARATOR)
        case "flag":
            lower = text.str.to_lowercase()
            return pl.when(lower.is_in(["true", "false"])).then(lower == "true")


def _moment(text: pl.Expr, config: TablesConfig) -> pl.Expr:
    spelt = text
    for written, meant in _SPELLINGS:
        spelt = spelt.str.replace(written, meant)
    forms = text, spelt
    moments = [one.str.to_datetime(RFC_3339, time_unit="us", time_zone="UTC", strict=False) for one in forms]
    if config.time_zone:
        blank = text.str.replace("T", " ", literal=True)
        naive = [blank.str.to_datetime(form, time_unit="us", strict=False) for form in _NAIVE]
        moments.append(_in_zone(pl.coalesce(naive), config.time_zone))
    # Of two digits Polars would make a year of the first century.
    return pl.when(text.str.contains(_YEAR_FIRST)).then(pl.coalesce(moments))


def _of_years(moment: pl.Expr, given: pl.DataType) -> pl.Expr:
    """Return typed moments, null where they lie outside of ``_YEARS``."""
    return pl.when(lies_in_years(moment, given)).then(moment)


def lies_in_years(moment: pl.Expr, given: pl.DataType) -> pl.Expr:
    """Return whether typed moments lie in the years that Python knows, 1 to 9999.

    Databases also write infinity.
    """
    begin, end = _YEARS
    if isinstance(given, pl.Datetime):
        begin, end = begin * _UNITS[given.time_unit], end * _UNITS[given.time_unit]
    else:
        begin, end = begin // 86_400, end // 86_400
    count = moment.to_physical()
    # Nanoseconds since 1970 reach from 1677 to 2262.
    return (count >= max(begin, -(2**63))) & (count <= min(end - 1, 2**63 - 1))


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    """Convert moments of a zone's clock to UTC.

    Where the clock shows an hour twice, the first one is meant. A moment that the clock skips is null. A midnight
    stands for a day; where the clock skips it, the day begins an hour later.
    """
    midnight = naive.dt.time() == pl.time(0)
    later = pl.when(midnight).then(naive + pl.duration(hours=1))
    read = [
        one.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
        for one in (naive, later)
    ]
    return pl.coalesce(read)
