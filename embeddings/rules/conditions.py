"""What a rule that was checked means: conditions over typed operands, in which no name is open any more."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from embeddings.rules.schema import Path, Type


@dataclass(frozen=True)
class Attribute:
    """What a name stands for, in the row or context that is looked at."""

    path: Path


@dataclass(frozen=True)
class Aggregate:
    """A figure of the customer's history.

    Attributes:
        function: a key of `schema.AGGREGATES`.
        filters: what the events are narrowed to, by name, the names ascending: one of some texts, or what an attribute
            has, such as the id of the offer that is looked at.
        days: how far to look back from the moment of the request; None for all that is kept.
    """

    function: str
    filters: tuple[tuple[str, "tuple[str, ...] | Attribute"], ...] = ()
    days: int | None = None


@dataclass(frozen=True)
class Membership:
    """Whether the customer is in a segment, or has consented to something."""

    kind: Literal["segment", "consent"]
    name: str


Numeric: TypeAlias = Attribute | Aggregate | float
Textual: TypeAlias = Attribute | str
Boolean: TypeAlias = Attribute | Membership


@dataclass(frozen=True)
class Constant:
    """A condition that is always true, always false, or (None) never known."""

    value: bool | None


@dataclass(frozen=True)
class Holds:
    """Something that is true or false itself."""

    operand: Boolean


@dataclass(frozen=True)
class Known:
    """Whether something is known, which is of a type."""

    operand: Attribute | Aggregate | Membership
    type: Type


@dataclass(frozen=True)
class Compared:
    """Two numbers compared."""

    left: Numeric
    operator: Literal["==", "<", "<="]
    right: Numeric


@dataclass(frozen=True)
class OneOf:
    """Whether a text is one of some."""

    operand: Attribute
    values: tuple[str, ...]


@dataclass(frozen=True)
class Same:
    """Whether two texts that both may vary are the same."""

    left: Attribute
    right: Attribute


@dataclass(frozen=True)
class Negated:
    """The contrary."""

    operand: "Condition"


@dataclass(frozen=True)
class All:
    """All of some conditions."""

    operands: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Any:
    """At least one of some conditions."""

    operands: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Equivalent:
    """Whether two conditions are both true or both false."""

    left: "Condition"
    right: "Condition"


Atom: TypeAlias = Holds | Known | Compared | OneOf | Same
"""What is not made of other conditions."""

Condition: TypeAlias = Constant | Atom | Negated | All | Any | Equivalent


def asked(condition: Condition) -> Iterator[Attribute | Aggregate | Membership]:
    """Yield everything that a condition asks about, as often as it does."""
    match condition:
        case Negated():
            yield from asked(condition.operand)
        case All() | Any():
            for operand in condition.operands:
                yield from asked(operand)
        case Equivalent():
            yield from asked(condition.left)
            yield from asked(condition.right)
        case Constant():
            pass
        case _:
            for operand in parts(condition):
                if isinstance(operand, Attribute | Aggregate | Membership):
                    yield operand
                if isinstance(operand, Aggregate):
                    yield from (wanted for _, wanted in operand.filters if isinstance(wanted, Attribute))


def parts(atom: Atom) -> tuple[Attribute | Aggregate | Membership | float, ...]:
    """Return what an atom is about."""
    match atom:
        case Holds() | Known() | OneOf():
            return (atom.operand,)
        case Compared() | Same():
            return (atom.left, atom.right)
