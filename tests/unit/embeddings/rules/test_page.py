"""The page on rules: every example is a rule, and every word of the language is on it."""

import re
from pathlib import Path

import pytest

from embeddings.errors import InvalidRule
from embeddings.rules.check import check
from embeddings.rules.conditions import Condition
from embeddings.rules.in_words import in_words
from embeddings.rules.parse import from_json, parse
from embeddings.rules.schema import AGGREGATES, Kind, Schema, Type, context_names
from embeddings.rules.tree import DEEPEST_RULE, LARGEST_RULE, LONGEST_RULE, Node

PAGE = (Path(__file__).parents[4] / "docs" / "rules.md").read_text()
USERS, DEVELOPERS = PAGE.split("## For developers")
TEXT = Kind(Type.TEXT)
SCHEMA = Schema(
    {
        ("customer", "age_group"): TEXT,
        ("customer", "age group"): TEXT,
        ("product", "id"): TEXT,
        ("product", "category"): TEXT,
        ("offer", "id"): TEXT,
        **context_names(("web",), ("1",), ("north",)),
    },
    filters=dict.fromkeys(("category", "brand", "product", "offer"), TEXT),
)
EXAMPLES = re.findall(r"^    (.+)$", USERS.split("## Faults")[0], re.MULTILINE)
REFUSED = re.findall(r"^    (.+)\n    line (\d+), column (\d+): .*did you mean (.+)\?$", USERS, re.MULTILINE)


def condition(text: str) -> Condition:
    return check(parse(text), SCHEMA).condition


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_a_rule(text: str):
    assert condition(text)


def test_the_first_example_reads_as_the_page_says():
    said = re.search(r"In words: \*(.+?)\.\*", PAGE, re.DOTALL)
    assert said
    assert in_words(condition(EXAMPLES[0]), SCHEMA) == " ".join(said[1].split())


@pytest.mark.parametrize(("text", "line", "column", "meant"), REFUSED)
def test_every_example_of_a_fault_is_refused_as_the_page_says(text: str, line: str, column: str, meant: str):
    with pytest.raises(InvalidRule) as refused:
        condition(text)
    (fault,) = refused.value.faults
    assert (str(fault.line), str(fault.column), fault.meant) == (line, column, meant)


def test_there_are_examples():
    assert len(EXAMPLES) > 8
    assert len(REFUSED) == 2


def test_every_function_bound_and_node_is_on_the_page():
    assert [name for name in AGGREGATES if f"`{name}(…)`" not in USERS] == []
    assert [bound for bound in (LONGEST_RULE, DEEPEST_RULE, LARGEST_RULE) if f"| {bound:,} |" not in USERS] == []
    nodes = [str(kind.__struct_config__.tag) for kind in Node.__subclasses__()]
    assert nodes
    assert [node for node in nodes if not re.search(rf'`{node}`|"{node}"', DEVELOPERS)] == []


def test_the_example_of_a_tree_is_a_tree():
    (document,) = re.findall(r"^    (\{.*\})$", DEVELOPERS, re.MULTILINE)
    assert from_json(document).text == "at.hour >= 17"
