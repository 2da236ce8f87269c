"""Rules are read: what they may look like, their bounds, and what is said of those that cannot be read."""

import json

import msgspec
import pytest

from embeddings.errors import InvalidRule, RuleFault
from embeddings.rules.parse import from_json, from_tree, parse
from embeddings.rules.text import text_of
from embeddings.rules.tree import (
    DEEPEST_RULE,
    LARGEST_RULE,
    LONGEST_RULE,
    And,
    Argument,
    Call,
    Compare,
    Expression,
    In,
    List,
    Name,
    Not,
    Number,
    Or,
    String,
)

A, B, C = Name(("a",)), Name(("b",)), Name(("c",))


def fault(text: str) -> RuleFault:
    with pytest.raises(InvalidRule) as refused:
        parse(text)
    (found,) = refused.value.faults
    return found


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", A),
        ("a || b && c", Or((A, And((B, C))))),
        ("(a || b) && c", And((Or((A, B)), C))),
        ("a && b && c", And((A, B, C))),
        ("a && (b && c)", And((A, And((B, C))))),
        ("!a == b", Compare("==", Not(A), B)),
        ("!(a == b)", Not(Compare("==", A, B))),
        ("customer.age_group", Name(("customer", "age_group"))),
        ('customer["age group"]', Name(("customer", "age group"))),
        ('a in ["x", "y"]', In(A, List((String("x"), String("y"))))),
        ("a >= -1.5e3", Compare(">=", A, Number(-1500.0))),
        (r"""a == 'it\'s "\u00e9\U0001F600"'""", Compare("==", A, String('it\'s "é\U0001f600"'))),
        (
            'f(a, b: "x", c: ["y"])',
            Call("f", (Argument(A), Argument(String("x"), "b"), Argument(List((String("y"),)), "c"))),
        ),
        ("trueness && inside", And((Name(("trueness",)), Name(("inside",))))),
    ],
)
def test_what_a_text_says(text: str, tree: Expression):
    assert parse(text).tree == tree
    assert parse(text_of(tree)).tree == tree


def test_spaces_and_lines_say_nothing():
    assert parse("a&&b").tree == parse("\n a\t&&\r\n b ").tree


def test_nodes_know_their_place_in_the_text():
    tree = parse("a &&\n (b == 'x')").tree
    assert isinstance(tree, And)
    assert [(node.start, node.end) for node in tree.operands] == [(0, 1), (6, 16)]


@pytest.mark.parametrize(
    ("text", "offset", "length", "meant"),
    [
        ("a = 1", 2, 1, "`==`"),
        ("a and b", 2, 3, "`&&`"),
        ("a OR b", 2, 2, "`||`"),
        ("not a", 4, 1, "`!`"),
        ("a & b", 2, 1, "`&&`"),
        ("a <> b", 3, 1, "`!=`"),
        ("a == “x”", 5, 1, '`"`'),
        ("a ==", 4, 0, None),
        ("a == 1 b", 7, 1, None),
        ("(a", 2, 0, None),
        ("a < b < c", 6, 1, None),
        ('a == "x', 5, 2, None),
        ('a == "\\q"', 6, 2, None),
        ('a == "\\ud800"', 6, 6, None),
        ("a == 1e999", 5, 5, None),
        ("a in []", 6, 1, None),
        ("", 0, 0, None),
    ],
)
def test_faults_have_a_place_and_what_may_be_meant(text: str, offset: int, length: int, meant: str | None):
    found = fault(text)
    assert (found.offset, found.length, found.meant) == (offset, length, meant)
    assert found.expected


def test_a_fault_names_line_and_column():
    found = fault("a &&\n b ==\n  $")
    assert (found.line, found.column) == (3, 3)


def test_what_closes_a_call_is_expected_by_its_sign():
    assert "`)`" in fault("f(a").expected
    assert "`[`" in fault('a in "x"').expected


def test_a_text_of_the_greatest_length_is_read_and_a_longer_one_is_not():
    text = f'a == "{"x" * (LONGEST_RULE - 7)}"'
    assert len(text) == LONGEST_RULE
    assert parse(text)
    assert fault(f"{text} ").offset == LONGEST_RULE


def test_a_rule_of_the_greatest_depth_is_read_and_a_deeper_one_is_not():
    assert parse("!" * (DEEPEST_RULE - 1) + "a")
    assert fault("!" * DEEPEST_RULE + "a").offset == DEEPEST_RULE
    assert parse("(" * 5_000 + "a" + ")" * 5_000).tree == A


def test_a_rule_of_the_greatest_size_is_read_and_a_larger_one_is_not():
    items = ",".join(["1"] * (LARGEST_RULE - 3))
    assert parse(f"a in [{items}]")
    fault(f"a in [{items},1]")


def test_deep_and_large_trees_are_refused_before_anything_walks_down_them():
    tree: Expression = A
    for _ in range(50_000):
        tree = Not(tree)
    with pytest.raises(InvalidRule):
        from_tree(tree)
    with pytest.raises(InvalidRule):
        from_tree(Or(tuple([A] * LARGEST_RULE)))
    with pytest.raises(InvalidRule):
        from_json('{"node":"not","operand":' * 5_000 + '{"node":"name","path":["a"]}' + "}" * 5_000)


@pytest.mark.parametrize(
    "piece", ["(", "!", '"', "\\", "a.", "a[", "a(", "[", "1e", "a&&", "-", '"\\', "a==", "!(", "f(a:"]
)
def test_hostile_texts_are_refused(piece: str):
    """One pass each: what took exponential time, or recursed, would not come back."""
    fault((piece * LONGEST_RULE)[:LONGEST_RULE])


@pytest.mark.parametrize(
    "tree", [Name(("true || x", "y")), Name(("true",)), Call("f() || g"), Call("f", (Argument(A, "b c"),))]
)
def test_a_tree_cannot_smuggle_text_in_through_its_names(tree: Expression):
    with pytest.raises(InvalidRule):
        from_tree(tree)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"node": "eval"},
        {"node": "and", "operands": [{"node": "name", "path": ["a"]}]},
        {"node": "number", "value": "1"},
        {"node": "name", "path": []},
        {"node": "name", "path": ["a"], "more": 1},
        [],
        None,
    ],
)
def test_what_is_no_tree_is_refused(document: object):
    with pytest.raises(InvalidRule):
        from_json(json.dumps(document))


def test_a_builder_gets_and_gives_plain_json():
    document = {
        "node": "compare",
        "operator": ">=",
        "left": {"node": "name", "path": ["at", "hour"]},
        "right": {"node": "number", "value": 17},
    }
    rule = from_json(json.dumps(document))
    assert rule.text == "at.hour >= 17"
    assert msgspec.to_builtins(rule.tree)["left"] == {"node": "name", "path": ("at", "hour"), "start": 0, "end": 7}
