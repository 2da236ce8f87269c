"""Rules against CEL of its makers: its ``&&`` and ``||`` absorb errors as Kleene's logic does what is unknown."""

from typing import Any

import pytest
from cel_expr_python import cel
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.rules.check import check
from embeddings.rules.parse import from_tree
from embeddings.rules.program import compiled, compiled_contrary
from embeddings.rules.rows import masks
from embeddings.rules.schema import AGGREGATES
from embeddings.rules.text import text_of
from embeddings.rules.tree import And, Argument, Call, Compare, Expression, In, Name, Node, Not, Number, Or
from tests.rules import SCHEMA, PlainFacts, World, known, rules, worlds

ENVIRONMENT = cel.NewEnv(variables={"x": cel.Type.DYN})


class Translation:
    """A rule as CEL knows it: what varies is a field of ``x``, which is missing where it is not known."""

    def __init__(self, world: World) -> None:
        self.world, self.fields = world, dict[str, Any]()

    def condition(self, node: Expression) -> Expression:
        """A count alone asks for one at least, which CEL has to be told."""
        found = self.operand(node)
        if isinstance(node, Call) and node.function in AGGREGATES:
            return Compare(">=", found, Number(1.0))
        return found

    def operand(self, node: Expression) -> Expression:  # noqa: PLR0911 - one line for each kind of node
        match node:
            case Number():
                return Call("dyn", (Argument(node),))  # whole numbers are of another type than fractions
            case Call() if node.function == "has":
                return Call("has", (Argument(self._field(node.arguments[0].value)),))
            case Name() | Call():
                return self._field(node)
            case In():
                return In(self.operand(node.operand), node.options)
            case Compare():
                return Compare(node.operator, self.operand(node.left), self.operand(node.right))
            case Not():
                return Not(self.condition(node.operand))
            case And() | Or():
                return type(node)(tuple(map(self.condition, node.operands)))
            case _:
                return node

    def _field(self, node: Node) -> Name:
        name = f"f{len(self.fields)}"
        self.fields[name] = known(node, self.world, 0)
        return Name(("x", name))


def verdict_of_cel(tree: Expression, world: World) -> bool | None:
    translation = Translation(world)
    text = text_of(translation.condition(tree))
    there = {name: value for name, value in translation.fields.items() if value is not None}
    result = ENVIRONMENT.compile(text).eval(data={"x": there})
    return None if result.type() == cel.Type.ERROR else result.value()


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(rules, min_size=5, max_size=8), worlds())
def test_two_thousand_rules_mean_what_cel_says(trees: list[Expression], world: World):
    world = world.of_row(0)
    conditions = [check(from_tree(tree), SCHEMA).condition for tree in trees]
    holds = masks(compiled(conditions), PlainFacts(world), 1)
    fails = masks(compiled_contrary(conditions), PlainFacts(world), 1)
    for tree, true, false in zip(trees, holds, fails, strict=True):
        said = verdict_of_cel(tree, world)
        assert (bool(true[0]), bool(false[0])) == (said is True, said is False), text_of(tree)
