"""Many rules for one customer at one moment: thousands of rules with a handful of NumPy calls.

What literals compare lies side by side in arrays that a program is laid out into once. Letters: V nodes of the program,
R rules, K numbers, F flags, C children.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from embeddings.rules.conditions import Aggregate, Attribute, Compared, Holds, Known, Membership, OneOf, Same
from embeddings.rules.facts import Facts
from embeddings.rules.program import ALWAYS, Both, Either, Literal, Program
from embeddings.rules.schema import Path

Places: TypeAlias = NDArray[np.intp]


class _Texts(NamedTuple):
    """The literals about one text: which nodes hold if it is known, and which change sides at one value."""

    path: Path
    otherwise: Places
    changed: Mapping[str, tuple[Places, Places]]


class _Pairs(NamedTuple):
    """Comparisons of one kind: places of two numbers, and of the node that the outcome is."""

    left: Places
    right: Places
    nodes: Places


class _Checks(NamedTuple):
    """Looks at single values: their places, the nodes, and what is wanted there."""

    values: Places
    nodes: Places
    wanted: NDArray[np.int8]


class _Level(NamedTuple):
    """Nodes of one kind whose children are all done: the children of all, and where those of each begin."""

    all: bool
    nodes: Places
    children: Places
    begins: Places


@dataclass(frozen=True, eq=False)
class Layout:
    """A program laid out for single customers; made once by `laid_out`."""

    program: Program
    texts: tuple[_Texts, ...]
    same: tuple[tuple[Path, Path, bool, int], ...]
    numbers: tuple[Path, ...]
    constants: NDArray[np.float64]
    less: _Pairs
    at_most: _Pairs
    equal: _Pairs
    unequal: _Pairs
    flags: tuple[Path, ...]
    holds: _Checks
    known_numbers: _Checks
    known_flags: _Checks
    known: tuple[tuple[Path, bool, int], ...]
    levels: tuple[_Level, ...]
    roots: Places


def holding(layout: Layout, facts: Facts) -> NDArray[np.bool_]:
    """Return which rules (R,) hold; the facts are one customer's, and nothing varies from row to row."""
    values_V = np.zeros(len(layout.program.nodes), np.bool_)
    values_V[ALWAYS] = True
    for path, otherwise, changed in layout.texts:
        text = facts.attribute(path)
        if text is not None:
            values_V[otherwise] = True
            if (found := changed.get(cast("str", text))) is not None:
                values_V[found[0]], values_V[found[1]] = True, False
    for left, right, wanted, node in layout.same:
        one, other = facts.attribute(left), facts.attribute(right)
        values_V[node] = one is not None and other is not None and (one == other) == wanted
    for path, wanted, node in layout.known:
        value = facts.attribute(path)
        values_V[node] = (value is not None and value == value) == wanted  # noqa: PLR0124 - not a number where unknown
    _numbers(layout, facts, values_V)
    _flags(layout, facts, values_V)
    for every, nodes, children, begins in layout.levels:
        join = np.logical_and if every else np.logical_or
        values_V[nodes] = join.reduceat(values_V[children], begins)
    return values_V[layout.roots]


def _numbers(layout: Layout, facts: Facts, values_V: NDArray[np.bool_]) -> None:
    """Fill in the nodes that compare numbers."""
    attributes = np.array([facts.attribute(path) for path in layout.numbers], np.float64)
    figures = np.asarray(facts.history(layout.program.aggregates), np.float64)
    numbers_K = np.concatenate([attributes, figures, layout.constants])
    for (left, right, nodes), compare in (
        (layout.less, np.less),
        (layout.at_most, np.less_equal),
        (layout.equal, np.equal),
    ):
        values_V[nodes] = compare(numbers_K[left], numbers_K[right])
    left, right, nodes = layout.unequal
    values_V[nodes] = (numbers_K[left] < numbers_K[right]) | (numbers_K[left] > numbers_K[right])
    places, nodes, wanted = layout.known_numbers
    values_V[nodes] = np.isnan(numbers_K[places]) != wanted


def _flags(layout: Layout, facts: Facts, values_V: NDArray[np.bool_]) -> None:
    """Fill in the nodes that ask what is true or false itself."""
    found = [*(facts.attribute(path) for path in layout.flags), *facts.membership(layout.program.memberships)]
    flags_F = np.array([-1 if flag is None else flag for flag in found], np.int8)
    places, nodes, wanted = layout.holds
    values_V[nodes] = flags_F[places] == wanted
    places, nodes, wanted = layout.known_flags
    values_V[nodes] = (flags_F[places] >= 0) == wanted


def laid_out(program: Program) -> Layout:
    """Return a program in arrays."""
    literals = [(place, node) for place, node in enumerate(program.nodes) if isinstance(node, Literal)]
    compared = [(place, atom, wanted) for place, (atom, wanted) in literals if isinstance(atom, Compared)]
    holds = [(place, atom.operand, wanted) for place, (atom, wanted) in literals if isinstance(atom, Holds)]
    known = [(place, atom.operand, wanted) for place, (atom, wanted) in literals if isinstance(atom, Known)]
    same = [
        (atom.left.path, atom.right.path, wanted, place) for place, (atom, wanted) in literals if isinstance(atom, Same)
    ]
    operands = [operand for _, atom, _ in compared for operand in (atom.left, atom.right)]
    numbers = dict.fromkeys(operand for operand in operands if isinstance(operand, Attribute))
    constants = dict.fromkeys(operand for operand in operands if isinstance(operand, float))
    places = {operand: place for place, operand in enumerate([*numbers, *program.aggregates, *constants])}
    flags = dict.fromkeys(operand for _, operand, _ in holds if isinstance(operand, Attribute))
    flag_places = {operand: place for place, operand in enumerate([*flags, *program.memberships])}
    pairs = _pairs(compared, places)
    return Layout(
        program=program,
        texts=_texts(literals),
        same=tuple(same),
        numbers=tuple(operand.path for operand in numbers),
        constants=np.array(list(constants), np.float64),
        less=pairs["<"],
        at_most=pairs["<="],
        equal=pairs["=="],
        unequal=pairs["!="],
        flags=tuple(operand.path for operand in flags),
        holds=_checks((flag_places[operand], place, wanted) for place, operand, wanted in holds),
        known_numbers=_checks(
            (places[part], place, wanted) for place, part, wanted in known if isinstance(part, Aggregate)
        ),
        known_flags=_checks(
            (flag_places[part], place, wanted) for place, part, wanted in known if isinstance(part, Membership)
        ),
        known=tuple((part.path, wanted, place) for place, part, wanted in known if isinstance(part, Attribute)),
        levels=_levels(program),
        roots=_array(program.roots),
    )


def _array(places: Sequence[int]) -> Places:
    return np.array(places, np.intp)


def _checks(found: Iterable[tuple[int, int, bool]]) -> _Checks:
    rows = list(found)
    values, nodes, wanted = ([row[part] for row in rows] for part in range(3))
    return _Checks(_array(values), _array(nodes), np.array(wanted, np.int8))


def _pairs(
    compared: Sequence[tuple[int, Compared, bool]], places: Mapping[Attribute | Aggregate | float, int]
) -> dict[str, _Pairs]:
    """Return comparisons by kind; what is false of two numbers that are known is true the other way round."""
    found: dict[str, list[tuple[int, int, int]]] = {"<": [], "<=": [], "==": [], "!=": []}
    for place, atom, wanted in compared:
        left, right = places[atom.left], places[atom.right]
        if wanted:
            found[atom.operator].append((left, right, place))
        elif atom.operator == "==":
            found["!="].append((left, right, place))
        else:
            found["<=" if atom.operator == "<" else "<"].append((right, left, place))
    return {sign: _Pairs(*(_array([row[part] for row in rows]) for part in range(3))) for sign, rows in found.items()}


def _texts(literals: Sequence[tuple[int, Literal]]) -> tuple[_Texts, ...]:
    otherwise: dict[Path, list[int]] = defaultdict(list)
    changed: dict[Path, dict[str, tuple[list[int], list[int]]]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for place, (atom, wanted) in literals:
        if isinstance(atom, OneOf):
            path = atom.operand.path
            for value in atom.values:
                changed[path][value][0 if wanted else 1].append(place)
            if not wanted:
                otherwise[path].append(place)
    return tuple(
        _Texts(path, _array(otherwise[path]), {value: (_array(on), _array(off)) for value, (on, off) in values.items()})
        for path, values in changed.items()
    )


def _levels(program: Program) -> tuple[_Level, ...]:
    """Return the nodes that are made of others, such that all of one level can be computed at once."""
    depths: list[int] = []
    found: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for place, node in enumerate(program.nodes):
        depths.append(1 + max(depths[child] for child in node.of) if isinstance(node, Both | Either) else 0)
        if isinstance(node, Both | Either):
            found[depths[-1], isinstance(node, Both)].append(place)
    levels: list[_Level] = []
    for (_, every), nodes in sorted(found.items()):
        children = [cast("Both | Either", program.nodes[place]).of for place in nodes]
        begins = np.cumsum([0, *map(len, children)])[:-1]
        flat = [child for each in children for child in each]
        levels.append(_Level(every, _array(nodes), _array(flat), begins.astype(np.intp)))
    return tuple(levels)
