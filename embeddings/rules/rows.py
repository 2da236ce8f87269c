"""Rules over many rows: one customer's products and offers, or all customers.

Letters: N rows.
"""

from collections import Counter
from collections.abc import Iterator
from functools import reduce
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from embeddings.rules.conditions import Aggregate, Attribute, Compared, Holds, Known, Membership, OneOf, Same
from embeddings.rules.facts import Facts, Flags, Numbers, Texts, Textual
from embeddings.rules.program import Both, Either, Literal, Program
from embeddings.rules.schema import Path, Type

Mask: TypeAlias = NDArray[np.bool_] | bool
"""Where something holds (N,), or whether it holds in all rows alike."""


_FEW = 4
"""So many texts are compared one by one; more are looked up in a table, which takes as long as some four."""


def masks(program: Program, facts: Facts, rows: int) -> Iterator[NDArray[np.bool_]]:
    """Yield for each rule, in their order, the rows (N,) in which it holds.

    Args:
        program: the rules.
        facts: what is known of the rows.
        rows: how many there are, N.
    """
    sight = _Sight(program, facts)
    for root in program.roots:
        found = sight.node(root)
        yield np.full(rows, found) if isinstance(found, bool) else found.copy()


class _Sight:
    """One look at the facts: what several nodes need is computed once, and all else is forgotten at once."""

    def __init__(self, program: Program, facts: Facts) -> None:
        self._nodes, self._facts = program.nodes, facts
        self._numbers = dict(zip(program.aggregates, facts.history(program.aggregates), strict=True))
        self._flags = dict(zip(program.memberships, facts.membership(program.memberships), strict=True))
        self._uses = Counter(program.roots)
        for node in program.nodes:
            self._uses.update(node.of if isinstance(node, Both | Either) else ())
        self._kept: dict[int, Mask] = {}
        self._columns: dict[Path, Textual | Numbers | Flags] = {}

    def node(self, number: int) -> Mask:
        """Return where a node holds; it is kept until the last of those that need it has asked."""
        self._uses[number] -= 1
        if number in self._kept:
            return self._kept[number] if self._uses[number] else self._kept.pop(number)
        node = self._nodes[number]
        match node:
            case bool():
                return node
            case Both():
                found = reduce(_and, map(self.node, node.of))
            case Either():
                found = reduce(_or, map(self.node, node.of))
            case Literal():
                found = self._literal(node)
        if self._uses[number]:
            self._kept[number] = found
        return found

    def _literal(self, literal: Literal) -> Mask:
        atom, wanted = literal
        match atom:
            case Holds():
                return _holds(self._flag(atom.operand), wanted)
            case Known():
                found = _known(self._any(atom.operand), atom.type)
                return found if wanted else _not(found)
            case Compared():
                return _compared(self._number(atom.left), atom.operator, self._number(atom.right), wanted)
            case OneOf():
                return _one_of(self._text(atom.operand), atom.values, wanted)
            case Same():
                return _same(self._text(atom.left), self._text(atom.right), wanted)

    def _any(self, part: Attribute | Aggregate | Membership) -> Textual | Numbers | Flags:
        match part:
            case Attribute():
                if part.path not in self._columns:
                    self._columns[part.path] = self._facts.attribute(part.path)
                return self._columns[part.path]
            case Aggregate():
                return self._numbers[part]
            case Membership():
                return self._flags[part]

    def _flag(self, part: Attribute | Membership) -> Flags:
        return cast("Flags", self._any(part))

    def _number(self, part: Attribute | Aggregate | float) -> Numbers:
        return cast("Numbers", self._any(part)) if isinstance(part, Attribute | Aggregate) else part

    def _text(self, part: Attribute) -> Textual:
        return cast("Textual", self._any(part))


def _and(one: Mask, other: Mask) -> Mask:
    if isinstance(one, bool):
        return other if one else False
    if isinstance(other, bool):
        return one if other else False
    return one & other


def _or(one: Mask, other: Mask) -> Mask:
    if isinstance(one, bool):
        return True if one else other
    if isinstance(other, bool):
        return True if other else one
    return one | other


def _not(found: Mask) -> Mask:
    return not found if isinstance(found, bool) else ~found


def _mask(found: NDArray[np.bool_] | np.bool_ | bool) -> Mask:
    """Return a mask whose single values are Python's."""
    return found if isinstance(found, np.ndarray) and found.ndim else bool(found)


def _holds(flags: Flags, wanted: bool) -> Mask:
    return False if flags is None else _mask(flags == int(wanted))


def _known(value: Textual | Numbers | Flags, kind: Type) -> Mask:
    if value is None:
        return False
    if isinstance(value, Texts):
        return value.codes_N != 0
    if isinstance(value, np.ndarray):
        return value >= 0 if kind is Type.BOOLEAN else ~np.isnan(value)
    return value == value  # noqa: PLR0124 - not a number where unknown


def _compared(left: Numbers, operator: str, right: Numbers, wanted: bool) -> Mask:
    if left is None or right is None:
        return False
    # What is not a number, and so unknown, is neither less than anything nor equal to it.
    if operator == "==":
        return _mask(left == right) if wanted else _or(_mask(left < right), _mask(right < left))
    if not wanted:  # not less is at least, and the other way round
        left, right = right, left
    return _mask(left < right if (operator == "<") == wanted else left <= right)


def _one_of(texts: Textual, values: tuple[str, ...], wanted: bool) -> Mask:
    if texts is None:
        return False
    if isinstance(texts, str):
        return (texts in values) == wanted
    codes_N = texts.codes_N
    codes = [code for value in values if (code := texts.labels.codes.get(value)) is not None]
    if not codes:
        return False if wanted else codes_N != 0
    if len(codes) <= _FEW:
        found = reduce(np.logical_or, [codes_N == code for code in codes])
        return found if wanted else ~found & (codes_N != 0)
    holds_V = np.full(len(texts.labels.values) + 1, not wanted)
    holds_V[codes] = wanted
    holds_V[0] = False
    return holds_V.take(codes_N)


def _same(left: Textual, right: Textual, wanted: bool) -> Mask:
    if left is None or right is None:
        return False
    if isinstance(right, str):
        return _one_of(left, (right,), wanted)
    if isinstance(left, str):
        return _one_of(right, (left,), wanted)
    left_N, right_N = left.codes_N, right.codes_N
    if left.labels is not right.labels:
        codes = [0, *(right.labels.codes.get(value, -1) for value in left.labels.values)]
        left_N = np.array(codes, np.int64)[left_N]
    found = left_N == right_N if wanted else left_N != right_N
    return found & (left_N != 0) & (right_N != 0)
