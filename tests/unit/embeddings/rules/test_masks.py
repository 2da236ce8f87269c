"""Every kind of condition over every combination of known and unknown values, against the syntax tree row by row."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest

from embeddings.rules.bind import bound
from embeddings.rules.check import check
from embeddings.rules.conditions import Condition, Constant
from embeddings.rules.parse import parse
from embeddings.rules.program import Literal, Program, compiled, compiled_contrary
from embeddings.rules.rows import masks
from embeddings.rules.schema import Path
from embeddings.rules.single import holding, laid_out
from tests.rules import SCHEMA, TEXTS, PlainFacts, Value, World, verdict

COLUMNS: dict[Path, Sequence[Value]] = {
    ("customer", "age_group"): (None, "A", "B"),
    ("product", "category"): (None, "A", "C"),
    ("customer", "children"): (None, 1.0, 2.0),
    ("product", "price"): (None, 1.0, 3.0),
    ("customer", "member"): (None, False, True),
}
ROWS = list(product(*COLUMNS.values()))
VARYING: dict[Path, Value | list[Value]] = {path: [row[place] for row in ROWS] for place, path in enumerate(COLUMNS)}
WORLD = World(
    len(ROWS), {**dict.fromkeys(SCHEMA.names), **VARYING, ("product", "in_stock"): True, ("offer", "id"): "7"}, 1
)

TEXTS_OF = ("customer.age_group", "product.category", '"A"', '"nobody"', 'customer["favourite store"]', "offer.id")
NUMBERS = ("customer.children", "product.price", "2", "distance_km")
FLAGS = ("customer.member", "product.in_stock", "true", 'segment("gold")', 'consent("sms")', "(at.hour > 3)")
HISTORIES = (
    "bought(category: product.category)",
    "redeemed(offer.id)",
    "viewed(offer: offer.kind, days: 2)",
    "spend(days: 3)",
)
RULES = [
    *(f"{left} {sign} {right}" for left, sign, right in product(TEXTS_OF, ("==", "!="), TEXTS_OF)),
    *(f"{left} {sign} {right}" for left, sign, right in product(NUMBERS, ("==", "!=", "<", "<=", ">", ">="), NUMBERS)),
    *(f"{left} {sign} {right}" for left, sign, right in product(FLAGS, ("==", "!="), FLAGS)),
    *(f"{left} {sign} {right}" for left, sign, right in product(FLAGS, ("&&", "||"), FLAGS)),
    *(f"{one} in [{', '.join(values)}]" for one in TEXTS_OF for values in (['"A"'], ['"B"', '"C"', '"x"'])),
    *(f"{one} in [1, 3]" for one in NUMBERS),
    *(
        f"has({one})"
        for one in (*HISTORIES, "customer.age_group", "customer.children", "customer.member", "offer.kind")
    ),
    *(f"has({one})" for one in ("distance_km", "offer.id", 'segment("new")', 'consent("email")')),
    *(f"{one} > 1" for one in HISTORIES),
    *HISTORIES[:3],
]


def meaning(text: str) -> Condition:
    return check(parse(text), SCHEMA).condition


@pytest.fixture(scope="module")
def verdicts() -> dict[str, list[bool | None]]:
    trees = {text: parse(text).tree for text in RULES}
    return {text: [verdict(tree, WORLD, row) for row in range(WORLD.rows)] for text, tree in trees.items()}


@pytest.mark.parametrize(("compile_", "wanted"), [(compiled, True), (compiled_contrary, False)])
class TestEveryCondition:
    def test_over_all_rows(
        self, compile_: Callable[[Sequence[Condition]], Program], wanted: bool, verdicts: dict[str, list[bool | None]]
    ):
        program = compile_([meaning(text) for text in RULES])
        for text, mask in zip(RULES, masks(program, PlainFacts(WORLD), WORLD.rows), strict=True):
            assert mask.tolist() == [found is wanted for found in verdicts[text]], text

    def test_all_at_once_for_each_row(
        self, compile_: Callable[[Sequence[Condition]], Program], wanted: bool, verdicts: dict[str, list[bool | None]]
    ):
        layout = laid_out(compile_([meaning(text) for text in RULES]))
        for row in range(WORLD.rows):
            found = holding(layout, PlainFacts(WORLD.of_row(row))).tolist()
            assert found == [verdicts[text][row] is wanted for text in RULES]

    def test_with_the_values_of_a_row_put_in(
        self, compile_: Callable[[Sequence[Condition]], Program], wanted: bool, verdicts: dict[str, list[bool | None]]
    ):
        conditions = [meaning(text) for text in RULES]
        for row in range(0, WORLD.rows, 7):
            alone = WORLD.of_row(row)
            values = {path: alone.value(path, 0) for path in [*COLUMNS, ("offer", "id"), ("offer", "kind")]}
            program = compile_([bound(condition, values) for condition in conditions])
            found = [bool(mask[0]) for mask in masks(program, PlainFacts(alone), 1)]
            assert found == [verdicts[text][row] is wanted for text in RULES]


def test_many_texts_are_looked_up_as_few_are():
    values: list[Value] = [*TEXTS, None]
    world = World(len(values), {**WORLD.values, ("customer", "age_group"): values}, 1)
    names = ", ".join(f'"{value}"' for value in ("A", "B", "C", "D", "E", "unheard of"))
    rule = meaning(f"customer.age_group in [{names}]")
    (holds,) = masks(compiled([rule]), PlainFacts(world), world.rows)
    (fails,) = masks(compiled_contrary([rule]), PlainFacts(world), world.rows)
    assert holds.tolist() == [True] * 5 + [False] * 3
    assert fails.tolist() == [False] * 5 + [True] * 2 + [False]


def test_a_number_that_is_none_is_not_known_when_it_is_put_in():
    rule = meaning("product.price == 3 || product.price != 3")
    price: Path = ("product", "price")
    for unknown in (None, float("nan")):
        program = compiled([bound(rule, {price: unknown})])
        assert not next(masks(program, PlainFacts(WORLD), 1)).any()


def test_what_rules_have_in_common_is_in_a_program_once():
    program = compiled([meaning("at.hour > 3 && customer.member"), meaning("customer.member && !(at.hour <= 3)")])
    assert len(program.roots) == 2
    assert sum(isinstance(node, Literal) for node in program.nodes) == 3  # more than 3 and not at most 3 are two
    again = compiled([meaning("at.hour > 3 && customer.member"), meaning("(customer.member) && at.hour > 3")])
    assert len(set(again.roots)) == 1


def test_what_is_always_true_or_never_needs_no_facts():
    program = compiled([meaning("true || bought()"), meaning("segment('gold') && false"), Constant(None)])
    assert not program.aggregates
    assert not program.memberships
    assert [mask.tolist() for mask in masks(program, PlainFacts(WORLD), 2)] == [[True] * 2, [False] * 2, [False] * 2]
    assert holding(laid_out(program), PlainFacts(WORLD)).tolist() == [True, False, False]


def test_no_rules_are_no_answers():
    empty = compiled([])
    assert list(masks(empty, PlainFacts(WORLD), 3)) == []
    assert holding(laid_out(empty), PlainFacts(WORLD)).shape == (0,)


def test_a_mask_belongs_to_whoever_asked():
    """Two equal rules have one node, and what is done to the mask of one leaves that of the other alone."""
    one, other = masks(compiled([meaning("customer.member")] * 2), PlainFacts(WORLD), WORLD.rows)
    one[:] = True
    assert not np.array_equal(one, other)
