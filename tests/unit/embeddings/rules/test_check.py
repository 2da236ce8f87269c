"""Rules are checked: names, types and values, each fault at its place; and what a rule is in words."""

import pytest

from embeddings.errors import InvalidRule
from embeddings.rules.check import check
from embeddings.rules.conditions import (
    Aggregate,
    All,
    Attribute,
    Compared,
    Holds,
    Known,
    Membership,
    Negated,
    OneOf,
    Same,
    asked,
)
from embeddings.rules.in_words import in_words
from embeddings.rules.parse import parse
from embeddings.rules.schema import Kind, Schema, Type
from tests.rules import SCHEMA

AGE, HOUR, OFFER = Attribute(("customer", "age_group")), Attribute(("at", "hour")), Attribute(("offer", "id"))


def faults(text: str, schema: Schema = SCHEMA) -> list[tuple[int, int, str | None]]:
    """Where the faults are, how long, and what may be meant."""
    with pytest.raises(InvalidRule) as refused:
        check(parse(text), schema)
    return [(fault.offset, fault.length, fault.meant) for fault in refused.value.faults]


def test_what_a_rule_means():
    text = 'customer.age_group == "A" && bought(category: "B", days: 30) && !redeemed(offer.id) && at.hour >= 17'
    assert check(parse(text), SCHEMA).condition == All(
        (
            OneOf(AGE, ("A",)),
            Compared(1.0, "<=", Aggregate("bought", (("category", ("B",)),), 30)),
            Negated(Compared(1.0, "<=", Aggregate("redeemed", (("offer", OFFER),)))),
            Compared(17.0, "<=", HOUR),
        )
    )


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("has(customer.age_group)", Known(AGE, Type.TEXT)),
        ('segment("gold")', Holds(Membership("segment", "gold"))),
        ('redeemed("7")', Compared(1.0, "<=", Aggregate("redeemed", (("offer", ("7",)),)))),
        ('bought("7")', Compared(1.0, "<=", Aggregate("bought", (("product", ("7",)),)))),
        ("viewed(offer.id)", Compared(1.0, "<=", Aggregate("viewed", (("offer", OFFER),)))),
        ("spend(days: 7) > 20", Compared(20.0, "<", Aggregate("spend", (), 7))),
        ('bought(days: 7, brand: "A")', Compared(1.0, "<=", Aggregate("bought", (("brand", ("A",)),), 7))),
        ('"A" != customer.age_group', Negated(OneOf(AGE, ("A",)))),
        ('customer.age_group in ["A", "B", "A"]', OneOf(AGE, ("A", "B"))),
        ("customer.age_group == product.category", Same(AGE, Attribute(("product", "category")))),
    ],
)
def test_what_parts_of_rules_mean(text: str, condition: object):
    assert check(parse(text), SCHEMA).condition == condition


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('custmer.age_group == "A"', [(0, 17, "`customer.age_group`")]),
        ('category == "A"', [(0, 8, "`product.category`")]),
        ("bougt(days: 3)", [(0, 5, "`bought`")]),
        ("not(customer.member)", [(0, 3, "`!`")]),
        ("bought", [(0, 6, "`bought(…)`")]),
        ("customer.age_group == null", [(22, 4, "`!has(…)`")]),
        ("customer.age_group == 3", [(22, 1, '"3"')]),
        ('at.hour == "17"', [(11, 4, "17")]),
        ("customer.age_group", [(0, 18, None)]),
        ("spend() && product.price", [(0, 7, None), (11, 13, None)]),
        ("3 || true", [(0, 1, None)]),
        ('customer.age_group < "B"', [(0, 18, None)]),
        ("3 > customer.member", [(4, 15, None)]),
        ('at.hour in [1, "x"]', [(15, 3, None)]),
        ("customer.member in [true]", [(0, 15, None)]),
        ('bought(catgory: "A", days: 0)', [(7, 12, "`category`"), (27, 1, None)]),
        ("bought(days: 1.5)", [(13, 3, None)]),
        ("bought(days: 1, days: 2)", [(16, 7, None)]),
        ("bought(offer: product.price)", [(14, 13, None)]),
        ('bought(category: ["A", 3])', [(17, 8, None)]),
        ('segment("gld")', [(8, 5, '"gold"')]),
        ("consent(customer.age_group)", [(0, 27, None)]),
        ('has("x")', [(0, 8, None)]),
        ("has(has(customer.member))", [(0, 25, None)]),
        ('at.weekday == "Monday"', [(14, 8, '"monday"')]),
        ('at.weekday in ["monday", "sonday"]', [(25, 8, '"sunday"')]),
        ('channel == "webb"', [(11, 6, '"web"')]),
    ],
)
def test_every_fault_has_its_place_and_what_may_be_meant(text: str, found: list[tuple[int, int, str | None]]):
    assert faults(text) == found


def test_a_value_that_nothing_has_yet_is_a_warning():
    checked = check(parse('customer.age_group == "a" && bought(category: "Z")'), SCHEMA)
    assert [(warning.offset, warning.meant) for warning in checked.warnings] == [(22, '"A"'), (46, None)]


def test_a_rule_may_use_fewer_names_than_others():
    segments = SCHEMA.only("customer")
    assert check(parse('customer.age_group == "A" && bought(days: 3)'), segments)
    assert faults("customer.member && offer.id == '7' && redeemed(offer.id)", segments) == [
        (19, 8, None),
        (47, 8, None),
    ]


def test_among_very_many_values_none_is_looked_for():
    many = Schema({("x",): Kind(Type.TEXT, frozenset(map(str, range(50_000))), closed=True)})
    assert check(parse('x == "49999"'), many)
    assert faults('x == "5OOO"', many) == [(5, 6, None)]


def test_what_a_rule_asks_about_can_be_listed():
    condition = check(
        parse('segment("gold") && (has(product.price) || redeemed(offer.id)) || at.hour < 3'), SCHEMA
    ).condition
    assert {one for one in asked(condition) if isinstance(one, Membership)} == {Membership("segment", "gold")}
    assert {one for one in asked(condition) if isinstance(one, Attribute)} == {
        OFFER,
        HOUR,
        Attribute(("product", "price")),
    }


def test_words_say_what_was_understood():
    """Whether a contrary is said as one: words are not pinned, but what turns a meaning round has to be in them."""
    for text, contrary in [
        ("at.hour < 3", "at.hour >= 3"),
        ("bought(days: 3)", "!bought(days: 3)"),
        ('segment("gold")', '!segment("gold")'),
        ("has(product.price)", "!has(product.price)"),
        ('customer.age_group == "A"', 'customer.age_group != "A"'),
        ("customer.member && at.hour < 3", "customer.member || at.hour < 3"),
        ("spend(days: 7) > 3", "spend(days: 8) > 3"),
        ("3 < at.hour", "3 > at.hour"),
    ]:
        one, other = (in_words(check(parse(each), SCHEMA).condition, SCHEMA) for each in (text, contrary))
        assert one != other


def test_a_contrary_of_several_is_said_of_each():
    both, same = (
        in_words(check(parse(text), SCHEMA).condition, SCHEMA)
        for text in ("!(customer.member || at.hour < 3)", "!customer.member && at.hour >= 3")
    )
    assert both == same
