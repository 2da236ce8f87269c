"""Rules, a small world to ask them of, and a slow evaluator that reads the syntax tree row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
from hypothesis import strategies as st

from embeddings.rules.conditions import Aggregate, Attribute, Membership
from embeddings.rules.facts import Flags, Labels, Numbers, Texts, Textual
from embeddings.rules.schema import AGGREGATES, Kind, Path, Schema, Type, context_names
from embeddings.rules.tree import (
    And,
    Argument,
    Boolean,
    Call,
    Compare,
    Expression,
    In,
    List,
    Name,
    Node,
    Not,
    Number,
    Or,
    String,
)

TEXTS = ("A", "B", "C", "D", "E", 'quo"te', "größe")
SEGMENTS, CONSENTS = ("gold", "new"), ("email", "sms")
_ANY = Kind(Type.TEXT, TEXTS)
SCHEMA = Schema(
    names={
        ("customer", "age_group"): Kind(Type.TEXT, TEXTS, words="the customer's age group"),
        ("customer", "favourite store"): _ANY,
        ("customer", "children"): Kind(Type.NUMBER),
        ("customer", "member"): Kind(Type.BOOLEAN),
        ("product", "id"): Kind(Type.TEXT),
        ("product", "category"): _ANY,
        ("product", "price"): Kind(Type.NUMBER),
        ("product", "in_stock"): Kind(Type.BOOLEAN),
        ("offer", "id"): Kind(Type.TEXT),
        ("offer", "kind"): Kind(Type.TEXT, ("coupon", "promotion", "content"), closed=True),
        **context_names(("web", "store"), ("1", "2"), ("north", "south")),
    },
    filters={"category": _ANY, "brand": _ANY, "product": Kind(Type.TEXT), "offer": Kind(Type.TEXT)},
    segments=SEGMENTS,
    consents=CONSENTS,
)

Value: TypeAlias = str | float | bool | None
Resolved: TypeAlias = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class World:
    """What is known of some rows; what does not vary has one value.

    Attributes:
        rows: how many there are.
        values: of each name: a value, or a list with one for each row.
        seed: what figures of histories and memberships follow from.
    """

    rows: int
    values: Mapping[Path, Value | list[Value]]
    seed: int

    def value(self, path: Path, row: int) -> Value:
        found = self.values[path]
        return found[row] if isinstance(found, list) else found

    def figure(self, function: str, filters: Resolved, days: int | None) -> float | None:
        """A figure that follows from what is asked; not known where what it is narrowed to is not known."""
        if any(None in values for _, values in filters):
            return None
        asked = repr((self.seed, function, [(name, sorted(map(str, values))) for name, values in filters], days))
        return (None, 0.0, 0.0, 1.0, 2.0, 25.5)[crc32(asked.encode()) % 6]

    def member(self, kind: str, name: str) -> bool | None:
        return (None, False, True)[crc32(repr((self.seed, kind, name)).encode()) % 3]

    def of_row(self, row: int) -> "World":
        """The world of one row alone."""
        return replace(self, rows=1, values={path: self.value(path, row) for path in self.values})


class PlainFacts:
    """A world as rules ask it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def attribute(self, path: Path) -> Textual | Numbers | Flags:
        values = self.world.values[path]
        if not isinstance(values, list):
            return values
        if SCHEMA.names[path].type is Type.NUMBER:
            return np.array(values, np.float64)
        if SCHEMA.names[path].type is Type.BOOLEAN:
            return np.array([-1 if value is None else value for value in values], np.int8)
        labels = Labels(sorted({value for value in values if isinstance(value, str)}))
        return Texts(np.array([labels.codes.get(str(value), 0) for value in values], np.int16), labels)

    def history(self, aggregates: Sequence[Aggregate]) -> Sequence[Numbers]:
        return [self._figure(aggregate) for aggregate in aggregates]

    def _figure(self, aggregate: Aggregate) -> Numbers:
        def at(row: int) -> float | None:
            filters = tuple(
                (name, (self.world.value(wanted.path, row),) if isinstance(wanted, Attribute) else wanted)
                for name, wanted in aggregate.filters
            )
            return self.world.figure(aggregate.function, filters, aggregate.days)

        varying = [wanted for _, wanted in aggregate.filters if isinstance(wanted, Attribute)]
        if any(isinstance(self.world.values[wanted.path], list) for wanted in varying):
            return np.array([at(row) for row in range(self.world.rows)], np.float64)
        return at(0)

    def membership(self, memberships: Sequence[Membership]) -> Sequence[Flags]:
        return [self.world.member(one.kind, one.name) for one in memberships]


def verdict(node: Node, world: World, row: int) -> bool | None:  # noqa: C901, PLR0911, PLR0912 - read from top to bottom
    """Whether a condition is true, false or (None) not known in one row, by the syntax tree alone."""
    match node:
        case Boolean():
            return node.value
        case Not():
            inner = verdict(node.operand, world, row)
            return None if inner is None else not inner
        case And():
            verdicts = [verdict(operand, world, row) for operand in node.operands]
            return False if False in verdicts else None if None in verdicts else True
        case Or():
            verdicts = [verdict(operand, world, row) for operand in node.operands]
            return True if True in verdicts else None if None in verdicts else False
        case Compare():
            left, right = known(node.left, world, row), known(node.right, world, row)
            if left is None or right is None:
                return None
            match node.operator:
                case "==":
                    return left == right
                case "!=":
                    return left != right
                case "<":
                    return left < right  # pyright: ignore[reportOperatorIssue]
                case "<=":
                    return left <= right  # pyright: ignore[reportOperatorIssue]
                case ">":
                    return left > right  # pyright: ignore[reportOperatorIssue]
                case ">=":
                    return left >= right  # pyright: ignore[reportOperatorIssue]
        case In():
            value = known(node.operand, world, row)
            return None if value is None else value in [item.value for item in node.options.items]
        case Call() if node.function == "has":
            return known(node.arguments[0].value, world, row) is not None
        case Call() if node.function in AGGREGATES:
            count = known(node, world, row)
            return None if count is None else count >= 1  # pyright: ignore[reportOperatorIssue]
        case _:
            found = known(node, world, row)
            assert found is None or isinstance(found, bool)
            return found


def known(node: Node, world: World, row: int) -> Any:
    """The value of an expression in one row; None if it is not known."""
    match node:
        case String() | Number():
            return node.value
        case Name():
            return world.value(node.path, row)
        case Call() if node.function in AGGREGATES:
            filters: dict[str, tuple[Value, ...]] = {}
            days: int | None = None
            for argument in node.arguments:
                value = argument.value
                if argument.name == "days":
                    assert isinstance(value, Number)
                    days = int(value.value)
                    continue
                subject = AGGREGATES[node.function].subject
                if isinstance(value, Name) and value.path in {("product", "id"), ("offer", "id")}:
                    subject = value.path[0]
                wanted = [item.value for item in value.items] if isinstance(value, List) else [known(value, world, row)]
                filters[argument.name or subject] = tuple(dict.fromkeys(wanted))
            return world.figure(node.function, tuple(sorted(filters.items())), days)
        case Call() if node.function in {"segment", "consent"}:
            (argument,) = node.arguments
            assert isinstance(argument.value, String)
            return world.member(node.function, argument.value.value)
        case _:
            return verdict(node, world, row)


def _names(kind: Type) -> st.SearchStrategy[Name]:
    return st.sampled_from([Name(path) for path, found in SCHEMA.names.items() if found.type is kind])


_open = st.sampled_from(
    [Name(path) for path, kind in SCHEMA.names.items() if kind.type is Type.TEXT and not kind.closed]
)
_texts = st.sampled_from([String(value) for value in (*TEXTS, "unheard of")])
_numbers = st.sampled_from([Number(value) for value in (0.0, 1.0, 2.0, 25.5, -3.0)])
_wanted = _texts | _open | st.lists(_texts, min_size=1, max_size=3).map(lambda items: List(tuple(items)))


@st.composite
def _aggregates(draw: st.DrawFn) -> Call:
    arguments = [
        Argument(draw(_wanted), name)
        for name in draw(st.lists(st.sampled_from(sorted(SCHEMA.filters)), unique=True, max_size=2))
    ]
    if draw(st.booleans()):
        arguments.append(Argument(Number(float(draw(st.integers(1, 3)))), "days"))
    if not arguments and draw(st.booleans()):
        arguments.append(Argument(draw(_texts | st.sampled_from([Name(("offer", "id")), Name(("product", "id"))]))))
    return Call(draw(st.sampled_from(sorted(AGGREGATES))), tuple(arguments))


def _has(one: Expression) -> Expression:
    return Call("has", (Argument(one),))


_memberships = st.one_of(
    st.sampled_from([Call("segment", (Argument(String(name)),)) for name in SEGMENTS]),
    st.sampled_from([Call("consent", (Argument(String(name)),)) for name in CONSENTS]),
)
_figures = _names(Type.NUMBER) | _aggregates()
_counts = _aggregates().filter(lambda call: AGGREGATES[call.function].measure == "count")
_equal = st.sampled_from(("==", "!="))
_ordered = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))
_atoms: st.SearchStrategy[Expression] = st.one_of(
    st.builds(Compare, _equal, _open | _texts, _open | _texts),
    st.builds(Compare, _ordered, _figures | _numbers, _figures | _numbers),
    st.builds(
        In, _open | _texts, st.lists(_texts, min_size=1, max_size=7, unique=True).map(lambda items: List(tuple(items)))
    ),
    st.builds(
        In, _figures | _numbers, st.lists(_numbers, min_size=1, max_size=3).map(lambda items: List(tuple(items)))
    ),
    st.builds(Compare, _equal, st.just(Name(("at", "weekday"))), st.sampled_from([String("monday"), String("sunday")])),
    _names(Type.BOOLEAN),
    _memberships,
    _counts,
    st.builds(_has, _names(Type.TEXT) | _names(Type.BOOLEAN) | _figures | _memberships),
    st.booleans().map(Boolean),
)


def _larger(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(inner, min_size=2, max_size=4).map(tuple)
    true_or_false = inner.filter(lambda node: not (isinstance(node, Call) and node.function in AGGREGATES))
    return st.one_of(
        st.builds(Not, inner),
        st.builds(And, several),
        st.builds(Or, several),
        st.builds(Compare, _equal, true_or_false, true_or_false),
    )


rules: st.SearchStrategy[Expression] = st.recursive(_atoms, _larger, max_leaves=12)
"""Trees of rules that fit the schema."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Some rows, of which much is not known; names vary from row to row or do not, as it comes."""
    rows = draw(st.integers(1, 5))
    of_type: dict[Type, st.SearchStrategy[Value]] = {
        Type.TEXT: st.sampled_from((None, *TEXTS, "monday", "sunday")),
        Type.NUMBER: st.sampled_from((None, 0.0, 1.0, 2.0, 25.5)),
        Type.BOOLEAN: st.sampled_from((None, False, True)),
    }
    values: dict[Path, Value | list[Value]] = {}
    for path, kind in SCHEMA.names.items():
        one = of_type[kind.type]
        values[path] = draw(st.lists(one, min_size=rows, max_size=rows)) if draw(st.booleans()) else draw(one)
    return World(rows, values, draw(st.integers(0, 1000)))
