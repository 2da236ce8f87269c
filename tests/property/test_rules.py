"""Rules as text, tree and masks, against a slow evaluator of the syntax tree; and whatever else is typed in."""

import contextlib
import re
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.errors import InvalidRule, RuleFault
from embeddings.rules.bind import bound
from embeddings.rules.check import Checked, check
from embeddings.rules.conditions import Attribute, Condition, asked
from embeddings.rules.in_words import in_words
from embeddings.rules.parse import from_json, from_tree, parse
from embeddings.rules.program import compiled, compiled_contrary
from embeddings.rules.rows import masks
from embeddings.rules.single import holding, laid_out
from embeddings.rules.text import text_of
from embeddings.rules.tree import Argument, Boolean, Call, Compare, Expression, In, List, Name, Not, Number, Or, String
from tests.rules import SCHEMA, PlainFacts, World, rules, verdict, worlds

_words = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(lambda word: word not in ("true", "false"))
_literals = st.one_of(
    st.builds(String, st.text(st.characters(exclude_categories=["Cs"]))),
    st.builds(Number, st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(Boolean, st.booleans()),
)
_lists = st.builds(List, st.lists(_literals, min_size=1, max_size=3).map(tuple))
_names = st.one_of(
    st.builds(Name, st.lists(_words, min_size=1, max_size=3).map(tuple)),
    st.builds(Name, st.tuples(_words, st.text(st.characters(exclude_categories=["Cs"])))),
)


def _larger(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    arguments = st.builds(Argument, inner | _lists, st.none() | _words)
    return st.one_of(
        st.builds(Not, inner),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Compare, st.sampled_from(("==", "!=", "<", "<=", ">", ">=")), inner, inner),
        st.builds(In, inner, _lists),
        st.builds(Call, _words, st.lists(arguments, max_size=3).map(tuple)),
    )


trees: st.SearchStrategy[Expression] = st.recursive(_literals | _names, _larger, max_leaves=10) | rules
"""Trees of any types, whether they make sense or not."""


@given(trees)
def test_a_tree_its_text_and_its_json_are_one(tree: Expression):
    rule = from_tree(tree)
    assert rule.tree == tree
    assert text_of(rule.tree) == rule.text
    assert parse(rule.text).tree == tree
    assert from_json(msgspec.json.encode(tree)).tree == tree


@given(trees)
def test_every_node_has_the_place_of_its_text(tree: Expression):
    rule = from_tree(tree)
    todo = [rule.tree]
    while todo:
        node = todo.pop()
        if not isinstance(node, List | Argument):
            assert parse(rule.text[node.start : node.end]).tree == node
        todo += node.children()


def checked(tree: Expression) -> Checked:
    return check(from_tree(tree), SCHEMA)


def conditions(trees: list[Expression]) -> list[Condition]:
    return [checked(tree).condition for tree in trees]


@settings(max_examples=400)
@given(st.lists(rules, min_size=1, max_size=4), worlds())
def test_masks_are_what_the_syntax_tree_says_row_by_row(trees: list[Expression], world: World):
    said = conditions(trees)
    holds = list(masks(compiled(said), PlainFacts(world), world.rows))
    fails = list(masks(compiled_contrary(said), PlainFacts(world), world.rows))
    for tree, true, false in zip(trees, holds, fails, strict=True):
        verdicts = [verdict(tree, world, row) for row in range(world.rows)]
        assert true.tolist() == [found is True for found in verdicts]
        assert false.tolist() == [found is False for found in verdicts]


@settings(max_examples=400)
@given(st.lists(rules, min_size=1, max_size=6), worlds())
def test_many_rules_for_one_customer_are_what_their_syntax_trees_say(trees: list[Expression], world: World):
    said = conditions(trees)
    holds, fails = laid_out(compiled(said)), laid_out(compiled_contrary(said))
    for row in range(world.rows):
        alone = world.of_row(row)
        verdicts = [verdict(tree, alone, 0) for tree in trees]
        assert holding(holds, PlainFacts(alone)).tolist() == [found is True for found in verdicts]
        assert holding(fails, PlainFacts(alone)).tolist() == [found is False for found in verdicts]


_SIGNS = (
    "&&",
    "||",
    "!",
    "==",
    "<",
    "=",
    "(",
    ")",
    "[",
    "]",
    ",",
    ":",
    '"',
    "'",
    "\\",
    "-",
    ".",
    "\n",
    " ",
    "\0",
    "\u201c",
)
_WORDS = (
    "in",
    "1",
    "1e9",
    "1e999",
    "true",
    "customer",
    "customer.age_group",
    "has",
    "bought",
    "days",
    '"A"',
    "null",
    "not",
)
_pieces = st.sampled_from((*_SIGNS, *_WORDS))


def faults_of(text: str) -> Sequence[RuleFault]:
    """What is wrong with a rule; anything else that is raised fails the test."""
    try:
        check(parse(text), SCHEMA)
    except InvalidRule as error:
        return error.faults or pytest.fail("refused without a fault")
    return ()


@settings(max_examples=1000)
@given(st.text() | st.lists(_pieces | st.text(max_size=2), max_size=40).map("".join))
def test_whatever_is_typed_in_is_a_rule_or_has_faults_with_places(text: str):
    for fault in faults_of(text):
        assert 0 <= fault.offset <= fault.offset + fault.length <= len(text)
        lines = text[: fault.offset].split("\n")
        assert (fault.line, fault.column) == (len(lines), len(lines[-1]) + 1)
        assert fault.expected
        assert not re.search("Token|__ANON|LPAR|COMPARISON", fault.expected)


@given(rules, st.data())
def test_a_rule_with_a_few_changed_characters_is_a_rule_or_has_faults(tree: Expression, data: st.DataObject):
    text = text_of(tree)
    place = data.draw(st.integers(0, len(text)))
    changed = text[:place] + data.draw(st.text(max_size=2)) + text[place + data.draw(st.integers(0, 3)) :]
    faults_of(changed)


@given(
    st.recursive(
        st.none() | st.text(max_size=3) | st.integers(),
        lambda one: (
            st.lists(one, max_size=3)
            | st.dictionaries(
                st.sampled_from(["node", "operands", "operand", "path", "value", "left"]),
                one | st.sampled_from(["not", "and", "name"]),
            )
        ),
    )
)
def test_whatever_a_builder_sends_is_a_rule_or_refused(document: object):
    with contextlib.suppress(InvalidRule):
        assert from_json(msgspec.json.encode(document)).tree


@given(rules, worlds(), st.data())
def test_names_bound_to_the_values_of_a_row_change_nothing_in_this_row(
    tree: Expression, world: World, data: st.DataObject
):
    row = data.draw(st.integers(0, world.rows - 1))
    alone = world.of_row(row)
    names = data.draw(st.lists(st.sampled_from(sorted(SCHEMA.names)), unique=True))
    condition = checked(tree).condition
    rest = bound(condition, {path: alone.value(path, 0) for path in names})
    assert not {Attribute(path) for path in names} & set(asked(rest))
    for compile_ in (compiled, compiled_contrary):
        before, after = (list(masks(compile_([one]), PlainFacts(alone), 1)) for one in (condition, rest))
        assert before[0].tolist() == after[0].tolist()


@given(rules)
def test_every_rule_can_be_said_in_words(tree: Expression):
    said = in_words(checked(tree).condition, SCHEMA)
    assert said
    assert "Attribute" not in said
    assert "Aggregate" not in said
