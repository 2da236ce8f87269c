"""Many rules as one program: what they have in common is computed once.

A rule is true, false or not known (Kleene's logic), and only what is true is eligible. So a program has for each
condition up to two literals, of which neither holds where something is not known: that the condition is true, and that
it is false. Negations are pushed down to them, and above are only ``and`` and ``or``:

    true(a && b) = true(a) and true(b)      false(a && b) = false(a) or false(b)      true(!a) = false(a)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from embeddings.rules.conditions import (
    Aggregate,
    All,
    Any,
    Atom,
    Condition,
    Constant,
    Equivalent,
    Membership,
    Negated,
    parts,
)


class Literal(NamedTuple):
    """That a condition is true, or (not ``wanted``) that it is false. Both are wrong where it is not known."""

    atom: Atom
    wanted: bool


@dataclass(frozen=True)
class Both:
    """All of some nodes, given by their numbers."""

    of: tuple[int, ...]


@dataclass(frozen=True)
class Either:
    """At least one of some nodes, given by their numbers."""

    of: tuple[int, ...]


NEVER, ALWAYS = 0, 1
"""The first two nodes of every program."""


@dataclass(frozen=True)
class Program:
    """Rules as nodes, each after those that it is made of.

    Attributes:
        nodes: NEVER and ALWAYS, which are booleans, then literals and what is made of them; no two are the same.
        roots: the node of each rule.
        aggregates, memberships: all that literals are about, once each.
    """

    nodes: tuple[bool | Literal | Both | Either, ...]
    roots: tuple[int, ...]
    aggregates: tuple[Aggregate, ...]
    memberships: tuple[Membership, ...]


def compiled(conditions: Sequence[Condition]) -> Program:
    """Return a program of which each rule holds where its condition is true."""
    builder = _Builder()
    roots = [builder.pair(condition)[0] for condition in conditions]
    return builder.program(roots)


def compiled_contrary(conditions: Sequence[Condition]) -> Program:
    """Return a program of which each rule holds where its condition is false: it is not known where neither holds."""
    return compiled([Negated(condition) for condition in conditions])


class _Builder:
    """Numbers nodes, the same node once."""

    def __init__(self) -> None:
        self.numbers: dict[bool | Literal | Both | Either, int] = {False: NEVER, True: ALWAYS}
        self.nodes: list[bool | Literal | Both | Either] = [False, True]

    def program(self, roots: Sequence[int]) -> Program:
        """Return the program of some roots, without what none of them needs."""
        needed = {NEVER, ALWAYS}
        todo = list(roots)
        while todo:
            if (number := todo.pop()) not in needed:
                needed.add(number)
                node = self.nodes[number]
                todo += node.of if isinstance(node, Both | Either) else ()
        places = {number: place for place, number in enumerate(sorted(needed))}
        nodes = [_moved(self.nodes[number], places) for number in places]
        operands = [part for node in nodes if isinstance(node, Literal) for part in parts(node.atom)]
        return Program(
            tuple(nodes),
            tuple(places[root] for root in roots),
            tuple(dict.fromkeys(part for part in operands if isinstance(part, Aggregate))),
            tuple(dict.fromkeys(part for part in operands if isinstance(part, Membership))),
        )

    def pair(self, condition: Condition) -> tuple[int, int]:
        """Return the nodes that hold where a condition is true, and where it is false."""
        match condition:
            case Constant():
                known = condition.value
                return (NEVER, NEVER) if known is None else (ALWAYS, NEVER) if known else (NEVER, ALWAYS)
            case Negated():
                true, false = self.pair(condition.operand)
                return false, true
            case All() | Any():
                pairs = [self.pair(operand) for operand in condition.operands]
                trues, falses = [one for one, _ in pairs], [other for _, other in pairs]
                if isinstance(condition, All):
                    return self.both(trues), self.either(falses)
                return self.either(trues), self.both(falses)
            case Equivalent():
                (left, left_not), (right, right_not) = self.pair(condition.left), self.pair(condition.right)
                return (
                    self.either([self.both([left, right]), self.both([left_not, right_not])]),
                    self.either([self.both([left, right_not]), self.both([left_not, right])]),
                )
            case _:
                return self._number(Literal(condition, True)), self._number(Literal(condition, False))

    def both(self, of: Sequence[int]) -> int:
        """Return the node that holds where all of some do."""
        found = self._flat(of, Both) - {ALWAYS}
        if NEVER in found:
            return NEVER
        return self._number(Both(tuple(sorted(found)))) if len(found) > 1 else next(iter(found), ALWAYS)

    def either(self, of: Sequence[int]) -> int:
        """Return the node that holds where one of some does."""
        found = self._flat(of, Either) - {NEVER}
        if ALWAYS in found:
            return ALWAYS
        return self._number(Either(tuple(sorted(found)))) if len(found) > 1 else next(iter(found), NEVER)

    def _flat(self, of: Sequence[int], kind: type[Both | Either]) -> set[int]:
        """Return the nodes that some are made of, where these are of the same kind as what is made of them."""
        found = set[int]()
        for number in of:
            node = self.nodes[number]
            found.update(node.of if isinstance(node, kind) else (number,))
        return found

    def _number(self, node: Literal | Both | Either) -> int:
        number = self.numbers.setdefault(node, len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(node)
        return number


def _moved(node: bool | Literal | Both | Either, places: dict[int, int]) -> bool | Literal | Both | Either:
    match node:
        case Both():
            return Both(tuple(places[number] for number in node.of))
        case Either():
            return Either(tuple(places[number] for number in node.of))
        case _:
            return node
