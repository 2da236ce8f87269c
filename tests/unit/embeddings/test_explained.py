"""What is told of values that a decoder refuses."""

from enum import Enum
from typing import Literal

import msgspec
import pytest

from embeddings.explained import Refused, explained


class Rule(Enum):
    ALL = "all"
    SOME = "some"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 0
    mark: Literal["a", "\t"] = "a"


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    seed: int = 0
    gap: float | Literal["auto"] = "auto"
    inner: Inner = msgspec.field(default_factory=Inner)
    rules: dict[str, Rule] = {}
    several: list[Inner] = []


class First(msgspec.Struct, tag="first", tag_field="model", forbid_unknown_fields=True):
    hops: int = 1


class Second(msgspec.Struct, tag="second", tag_field="model", forbid_unknown_fields=True):
    heads: int = 1


CASES = {
    '{"gap": "x"}': Refused("gap", "expected one of a number, auto; got 'x'"),
    '{"rules": {"web": "x"}}': Refused("rules[...]", "expected one of all, some; got 'x'"),
    '{"several": [{}, {"mark": "b"}]}': Refused("several[1].mark", "expected one of '\\t', a; got 'b'"),
    '{"size": 1}': Refused("", "Object contains unknown field `size`; did you mean inner.size?"),
    '{"inner": {"seed": 1}}': Refused(
        "inner", "Object contains unknown field `seed`; did you mean seed outside of inner?"
    ),
    '{"sed": 1}': Refused("", "Object contains unknown field `sed`; did you mean seed?"),
    '{"inner": {"colour": 1}}': Refused("inner", "Object contains unknown field `colour`; expected one of size, mark"),
    '{"seed": "x"}': Refused("seed", "Expected `int`, got `str`"),
    "[]": Refused("", "Expected `object`, got `array`"),
}


@pytest.mark.parametrize("text", CASES)
def test_what_is_accepted_is_named(text: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(text, type=Outer)
    assert explained(raised.value, Outer) == CASES[text]


TAGGED = {
    '{"model": "third"}': Refused("model", "expected one of first, second; got 'third'"),
    '{"model": "second", "hops": 1}': Refused("", "Object contains unknown field `hops`"),
}


@pytest.mark.parametrize("text", TAGGED)
def test_of_several_kinds_none_is_guessed(text: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(text, type=First | Second)
    assert explained(raised.value, First | Second) == TAGGED[text]
