"""Rules are checked against a schema: every name is known and every type fits; what comes out is what a rule means."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from operator import attrgetter, eq, le, lt
from typing import NamedTuple, TypeAlias

from embeddings.errors import InvalidRule, RuleFault
from embeddings.rules.calls import read_aggregate
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
    Membership,
    Negated,
    OneOf,
    Same,
)
from embeddings.rules.faults import shown
from embeddings.rules.findings import Findings
from embeddings.rules.parse import Rule
from embeddings.rules.schema import AGGREGATES, Kind, Schema, Type
from embeddings.rules.text import quoted, text_of, text_of_number
from embeddings.rules.tree import And, Boolean, Call, Compare, Expression, In, Name, Not, Number, Operator, Or, String

_Conditions = (Constant, Holds, Known, Compared, OneOf, Same, Negated, All, Any, Equivalent)
_Operand: TypeAlias = Attribute | Aggregate | Membership | str | float | Condition


@dataclass(frozen=True)
class Checked:
    """A rule that makes sense.

    Attributes:
        rule: as it was read.
        condition: what it means.
        warnings: what is likely a mistake: values that nothing has so far.
    """

    rule: Rule
    condition: Condition
    warnings: tuple[RuleFault, ...]


class _Typed(NamedTuple):
    """An expression with its type; ``kind`` where it is a name."""

    type: Type
    operand: _Operand
    kind: Kind | None = None


def check(rule: Rule, schema: Schema) -> Checked:
    """Return what a rule means.

    Raises:
        InvalidRule: names are not known or types do not fit; carries every fault, in the order of the text.
    """
    checker = _Checker(rule.text, schema)
    condition = checker.condition(rule.tree)
    if checker.findings.faults or condition is None:
        raise InvalidRule(sorted(checker.findings.faults, key=attrgetter("offset")))
    return Checked(rule, condition, tuple(sorted(checker.findings.warnings, key=attrgetter("offset"))))


class _Checker:
    """Reads a tree once. What is wrong goes into the findings; None stands for an expression with a fault in it."""

    def __init__(self, text: str, schema: Schema) -> None:
        self.schema, self.findings = schema, Findings(text, schema)

    def condition(self, node: Expression) -> Condition | None:
        """Return the condition that an expression is; a count alone asks for one at least."""
        typed = self.typed(node)
        if typed is None:
            return None
        if typed.type is Type.BOOLEAN:
            return _condition(typed.operand)
        operand = typed.operand
        if isinstance(operand, Aggregate):
            if AGGREGATES[operand.function].measure == "count":
                return Compared(1.0, "<=", operand)
            self.findings.wrong(node, f"{shown(text_of(node))}, a number", "a comparison with it, such as `> 20`")
        elif isinstance(operand, Attribute):
            expected = f"a comparison with it, such as `{_like(typed)}`"
            self.findings.wrong(node, f"{shown(text_of(node))}, {typed.type}", expected)
        else:
            self.findings.wrong(node, f"{typed.type}", "a condition, which is true or false")
        return None

    def typed(self, node: Expression) -> _Typed | None:
        """Return an expression with its type."""
        match node:
            case String():
                return _Typed(Type.TEXT, node.value)
            case Number():
                return _Typed(Type.NUMBER, node.value)
            case Name():
                kind = self.findings.name(node)
                return None if kind is None else _Typed(kind.type, Attribute(node.path), kind)
            case Call() if node.function in AGGREGATES:
                aggregate = read_aggregate(node, self.findings)
                return None if aggregate is None else _Typed(Type.NUMBER, aggregate)
            case _:
                condition = self._logical(node)
                return None if condition is None else _Typed(Type.BOOLEAN, condition)

    def _logical(self, node: Boolean | Call | Compare | In | Not | And | Or) -> Condition | None:
        """Return the condition of an expression that cannot be anything else."""
        match node:
            case Boolean():
                return Constant(node.value)
            case Call():
                return self._call(node)
            case Compare():
                return self._compare(node)
            case In():
                return self._one_of(node)
            case Not():
                operand = self.condition(node.operand)
                return None if operand is None else Negated(operand)
            case And() | Or():
                return self._joined(node)

    def _joined(self, node: And | Or) -> Condition | None:
        operands = [self.condition(operand) for operand in node.operands]
        sound = tuple(operand for operand in operands if operand is not None)
        if len(sound) < len(operands):
            return None
        return All(sound) if isinstance(node, And) else Any(sound)

    def _compare(self, node: Compare) -> Condition | None:
        left, right = self.typed(node.left), self.typed(node.right)
        if left is None or right is None:
            return None
        if node.operator in ("==", "!="):
            if left.type is not right.type:
                expected = f"{left.type}, as before `{node.operator}`"
                self.findings.wrong(node.right, self._described(node.right, right), expected, _meant(left, right))
                return None
            same = self._same(node, left, right)
            return Negated(same) if node.operator == "!=" else same
        for side, typed in ((node.left, left), (node.right, right)):
            if typed.type is not Type.NUMBER:
                self.findings.wrong(side, self._described(side, typed), f"a number on both sides of `{node.operator}`")
                return None
        return _ordered(node.operator, left.operand, right.operand)

    def _same(self, node: Compare, left: _Typed, right: _Typed) -> Condition:
        """Return whether two operands of one type are the same."""
        match left.operand, right.operand:
            case str() as one, str() as other:
                return Constant(one == other)
            case (Attribute() as attribute, str() as value) if left.kind is not None:
                self.findings.value(node.right, value, left.kind)
                return OneOf(attribute, (value,))
            case (str() as value, Attribute() as attribute) if right.kind is not None:
                self.findings.value(node.left, value, right.kind)
                return OneOf(attribute, (value,))
            case (Attribute() as one, Attribute() as other) if left.type is Type.TEXT:
                return Same(one, other)
            case one, other:
                if left.type is Type.NUMBER:
                    return _ordered("==", one, other)
                return Equivalent(_condition(one), _condition(other))

    def _one_of(self, node: In) -> Condition | None:
        typed = self.typed(node.operand)
        if typed is None:
            return None
        if typed.type is Type.BOOLEAN:
            self.findings.wrong(node.operand, self._described(node.operand, typed), "a text or a number before `in`")
            return None
        wanted = String if typed.type is Type.TEXT else Number
        others = [item for item in node.options.items if not isinstance(item, wanted)]
        for item in others:
            self.findings.wrong(item, shown(text_of(item)), f"{typed.type}, as before `in`")
        if others:
            return None
        if typed.type is Type.NUMBER:
            numbers = [item.value for item in node.options.items if isinstance(item, Number)]
            return Any(tuple(_ordered("==", typed.operand, number) for number in numbers))
        texts = [item for item in node.options.items if isinstance(item, String)]
        if not isinstance(typed.operand, Attribute):
            return Constant(typed.operand in [item.value for item in texts])
        if typed.kind is not None:
            for item in texts:
                self.findings.value(item, item.value, typed.kind)
        return OneOf(typed.operand, tuple(dict.fromkeys(item.value for item in texts)))

    def _call(self, node: Call) -> Condition | None:
        match node.function:
            case "has":
                return self._known(node)
            case "segment":
                return self._member(node, self.schema.segments)
            case "consent":
                return self._member(node, self.schema.consents)
            case _:
                self.findings.function(node)
                return None

    def _member(self, node: Call, known: Collection[str]) -> Condition | None:
        what = "segment" if node.function == "segment" else "consent"
        match node.arguments:
            case (argument,) if argument.name is None and isinstance(argument.value, String):
                kind = Kind(Type.TEXT, known, closed=True, words=f"the {what}")
                if not self.findings.value(argument.value, argument.value.value, kind):
                    return None
                return Holds(Membership(what, argument.value.value))
            case _:
                self.findings.wrong(node, shown(text_of(node)), f'one text, such as `{what}("…")`')
                return None

    def _known(self, node: Call) -> Condition | None:
        match node.arguments:
            case (argument,) if argument.name is None and isinstance(argument.value, Name | Call):
                typed = self.typed(argument.value)
                if typed is None:
                    return None
                operand = typed.operand.operand if isinstance(typed.operand, Holds) else typed.operand
                if isinstance(operand, Attribute | Aggregate | Membership):
                    return Known(operand, typed.type)
            case _:
                pass
        self.findings.wrong(node, shown(text_of(node)), "one name or history, such as `has(customer.age_group)`")
        return None

    @staticmethod
    def _described(node: Expression, typed: _Typed) -> str:
        if isinstance(node, String | Number | Name | Call):
            return f"{shown(text_of(node))}, {typed.type}"
        return str(typed.type)


def _condition(operand: _Operand) -> Condition:
    """Return the condition that an operand of type boolean is."""
    if isinstance(operand, _Conditions):
        return operand
    if isinstance(operand, Attribute | Membership):
        return Holds(operand)
    raise TypeError(f"neither true nor false: {operand!r}")


def _ordered(operator: Operator, left: _Operand, right: _Operand) -> Condition:
    """Return the comparison of two operands of type number."""
    if operator in (">", ">="):
        return _ordered("<" if operator == ">" else "<=", right, left)
    sign = "==" if operator == "==" else "<" if operator == "<" else "<="
    match left, right:
        case float(), float():
            return Constant({"==": eq, "<": lt, "<=": le}[sign](left, right))
        case ((float() | Attribute() | Aggregate()), (float() | Attribute() | Aggregate())):
            return Compared(left, sign, right)
        case _:
            raise TypeError(f"no numbers: {left!r} and {right!r}")


def _meant(left: _Typed, right: _Typed) -> str | None:
    """Return the number on the right as a text, where a text is on the left, and the other way round."""
    if left.type is Type.TEXT and isinstance(right.operand, float):
        return quoted(text_of_number(right.operand))
    if left.type is Type.NUMBER and isinstance(right.operand, str) and right.operand.isdecimal():
        return right.operand
    return None


def _like(typed: _Typed) -> str:
    """Return an example of a comparison with a name."""
    values: Iterable[str] = (typed.kind.values or ()) if typed.kind else ()
    return "> 20" if typed.type is Type.NUMBER else f'== "{next(iter(values), "…")}"'
