"""The syntax tree of a rule. Its JSON is what a builder edits: objects whose field ``node`` says what they are."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias, cast

from msgspec import Meta, Struct

LONGEST_RULE = 20_000
"""Characters that the text of a rule may have: room for a list of a thousand locations."""

DEEPEST_RULE = 32
"""How deep conditions may lie in each other. What lies in parentheses alone is not deeper."""

LARGEST_RULE = 2_000
"""Nodes that a rule may have; each value of a list is one."""

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]


class Node(Struct, frozen=True, eq=False, kw_only=True, tag_field="node", forbid_unknown_fields=True):
    """A part of a rule. Two nodes are equal if they say the same, wherever they stand.

    Attributes:
        start, end: the characters of the text from which it was read: ``text[start:end]``; 0 in a tree made otherwise.
    """

    start: int = 0
    end: int = 0

    def children(self) -> "list[Node]":
        """Return the nodes right below this one, in the order of the text."""
        found: list[Node] = []
        for value in self._said():
            if isinstance(value, Node):
                found.append(value)
            elif isinstance(value, tuple):
                found += [item for item in cast("tuple[object, ...]", value) if isinstance(item, Node)]
        return found

    def _said(self) -> tuple[Any, ...]:
        return (type(self), *(getattr(self, name) for name in self.__struct_fields__ if name not in ("start", "end")))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self._said() == other._said()

    def __ne__(self, other: object) -> bool:  # that of Struct does not ask __eq__
        return not self == other

    def __hash__(self) -> int:
        return hash(self._said())


class String(Node, frozen=True, tag="string"):
    """A text."""

    value: str


class Number(Node, frozen=True, tag="number"):
    """A finite number."""

    value: float


class Boolean(Node, frozen=True, tag="boolean"):
    """True or false."""

    value: bool


Literals: TypeAlias = String | Number | Boolean


class List(Node, frozen=True, tag="list"):
    """Some values, at least one."""

    items: Annotated[tuple[Literals, ...], Meta(min_length=1)]


class Name(Node, frozen=True, tag="name"):
    """Something that is known of a customer, a product, an offer or the moment, such as ``customer.age_group``.

    Attributes:
        path: its parts, such as ``("customer", "age_group")``.
    """

    path: Annotated[tuple[str, ...], Meta(min_length=1)]


class Argument(Node, frozen=True, tag="argument"):
    """An argument of a call; without a name it is told by its place."""

    value: "Expression | List"
    name: str | None = None


class Call(Node, frozen=True, tag="call"):
    """A function of some arguments, such as ``bought(category: "DAIRY", days: 30)``."""

    function: str
    arguments: tuple[Argument, ...] = ()


class Compare(Node, frozen=True, tag="compare"):
    """Two operands side by side."""

    operator: Operator
    left: "Expression"
    right: "Expression"


class In(Node, frozen=True, tag="in"):
    """Whether an operand is one of some values."""

    operand: "Expression"
    options: List


class Not(Node, frozen=True, tag="not"):
    """The contrary."""

    operand: "Expression"


class And(Node, frozen=True, tag="and"):
    """All of some conditions."""

    operands: Annotated[tuple["Expression", ...], Meta(min_length=2)]


class Or(Node, frozen=True, tag="or"):
    """At least one of some conditions."""

    operands: Annotated[tuple["Expression", ...], Meta(min_length=2)]


Expression: TypeAlias = String | Number | Boolean | Name | Call | Compare | In | Not | And | Or


def walk(node: Node) -> Iterator[tuple[Node, int]]:
    """Yield every node of a tree and how deep it lies, from 1; without recursion, so that no depth is too much."""
    todo = [(node, 1)]
    while todo:
        here, depth = todo.pop()
        yield here, depth
        todo += [(child, depth + 1) for child in reversed(here.children())]
