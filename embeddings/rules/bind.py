"""Names are replaced by what they stand for, such as the offer's in the rule of each offer.

Rules that differ by the row they belong to can then be asked of one customer all at once.
"""

from collections.abc import Mapping
from math import isnan
from operator import eq, le, lt
from typing import TypeAlias

from embeddings.rules.conditions import (
    Aggregate,
    All,
    Any,
    Attribute,
    Compared,
    Condition,
    Constant,
    Equivalent,
    Holds,
    Known,
    Negated,
    Numeric,
    OneOf,
    Same,
)
from embeddings.rules.schema import Path

Values: TypeAlias = Mapping[Path, str | float | bool | None]
"""What names stand for; None and NaN are not known."""

_COMPARE = {"==": eq, "<": lt, "<=": le}


def bound(condition: Condition, values: Values) -> Condition:
    """Return a condition in which some names are replaced by their values."""
    match condition:
        case Negated():
            return Negated(bound(condition.operand, values))
        case All():
            return All(tuple(bound(operand, values) for operand in condition.operands))
        case Any():
            return Any(tuple(bound(operand, values) for operand in condition.operands))
        case Equivalent():
            return Equivalent(bound(condition.left, values), bound(condition.right, values))
        case Compared():
            return _compared(condition, values)
        case _:
            return _simple(condition, values)


def _compared(condition: Compared, values: Values) -> Condition:
    left, right = _number(condition.left, values), _number(condition.right, values)
    if left is None or right is None:
        return Constant(None)
    if isinstance(left, float) and isinstance(right, float):
        return Constant(_COMPARE[condition.operator](left, right))
    return Compared(left, condition.operator, right)


def _number(operand: Numeric, values: Values) -> Numeric | None:
    match operand:
        case Attribute():
            if operand.path not in values:
                return operand
            value = values[operand.path]
            return None if value is None or isinstance(value, str) or isnan(value) else float(value)
        case Aggregate():
            return _aggregate(operand, values)
        case _:
            return operand


def _aggregate(aggregate: Aggregate, values: Values) -> Aggregate | None:
    """Return an aggregate narrowed to what names stand for; None where that is not known."""
    filters: list[tuple[str, tuple[str, ...] | Attribute]] = []
    for name, wanted in aggregate.filters:
        if isinstance(wanted, Attribute) and wanted.path in values:
            if not isinstance(value := values[wanted.path], str):
                return None
            filters.append((name, (value,)))
        else:
            filters.append((name, wanted))
    return Aggregate(aggregate.function, tuple(filters), aggregate.days)


def _simple(condition: Holds | Known | OneOf | Same | Constant, values: Values) -> Condition:
    match condition:
        case Holds(Attribute(path=path)) if path in values:
            value = values[path]
            return Constant(value if isinstance(value, bool) else None)
        case Known(Attribute(path=path)) if path in values:
            return Constant(values[path] is not None)
        case Known(Aggregate() as operand):
            aggregate = _aggregate(operand, values)
            return Constant(False) if aggregate is None else Known(aggregate, condition.type)
        case OneOf(Attribute(path=path)) if path in values:
            value = values[path]
            return Constant(None if value is None else value in condition.values)
        case Same():
            return _same(condition.left, condition.right, values)
        case _:
            return condition


def _same(left: Attribute, right: Attribute, values: Values) -> Condition:
    for one, other in ((left, right), (right, left)):
        if one.path in values:
            value = values[one.path]
            if not isinstance(value, str):
                return Constant(None)
            return _simple(OneOf(other, (value,)), values)
    return Same(left, right)
