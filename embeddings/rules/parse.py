"""Rules are read: from text or from a builder's tree, bounded in length, depth and size."""

import re
import sys
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any, cast

import msgspec
from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput

from embeddings.errors import InvalidRule, RuleFault
from embeddings.rules.faults import Place, fault_at, syntax_fault
from embeddings.rules.text import text_of
from embeddings.rules.tree import (
    DEEPEST_RULE,
    LARGEST_RULE,
    LONGEST_RULE,
    And,
    Argument,
    Boolean,
    Call,
    Compare,
    Expression,
    In,
    List,
    Literals,
    Name,
    Node,
    Not,
    Number,
    Operator,
    Or,
    String,
    walk,
)

_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_SIMPLE = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Rule:
    """A rule that was read.

    Attributes:
        text: what was read.
        tree: what it says.
    """

    text: str
    tree: Expression


class _Wrong(Exception):
    """Something that the grammar accepts and no rule may hold."""

    def __init__(self, place: Place, found: str, expected: str) -> None:
        super().__init__(found)
        self.place, self.found, self.expected = place, found, expected


def parse(text: str) -> Rule:
    """Return the rule that a text says.

    Raises:
        InvalidRule: the text is no rule, is too long, or nests too deeply; its names and types are not looked at.
    """
    if len(text) > LONGEST_RULE:
        place = Place(LONGEST_RULE, len(text))
        raise InvalidRule([fault_at(text, place, f"{len(text)} characters", f"at most {LONGEST_RULE}")])
    try:
        tree = cast("Expression", _parser().parse(text))
    except UnexpectedInput as error:
        raise InvalidRule([syntax_fault(text, error)]) from None
    except _Wrong as wrong:
        raise InvalidRule([fault_at(text, wrong.place, wrong.found, wrong.expected)]) from None
    for size, (node, depth) in enumerate(walk(tree), start=1):
        place = Place(node.start, node.end)
        if depth > DEEPEST_RULE:
            found, expected = "a condition too deep inside others", f"at most {DEEPEST_RULE} inside each other"
            raise InvalidRule([fault_at(text, place, found, expected)])
        if size > LARGEST_RULE:
            raise InvalidRule([fault_at(text, place, "one part too many", f"at most {LARGEST_RULE} parts")])
    return Rule(text, tree)


def from_tree(tree: Expression) -> Rule:
    """Return the rule that a tree says, with its canonical text, in which each node has its place.

    Raises:
        InvalidRule: the tree is too large or too deep, or has names that cannot be written.
    """
    for size, (_, depth) in enumerate(walk(tree), start=1):
        if depth > DEEPEST_RULE or size > LARGEST_RULE:
            found, expected = "a larger tree", f"at most {LARGEST_RULE} nodes, {DEEPEST_RULE} inside each other"
            raise InvalidRule([RuleFault(0, 0, 1, 1, found, expected)])
    rule = parse(text_of(tree))
    if rule.tree != tree:
        place = Place(0, len(rule.text))
        raise InvalidRule([fault_at(rule.text, place, "a name that cannot be written", "words of letters and digits")])
    return rule


def from_json(document: bytes | str) -> Rule:
    """Return the rule that a builder's tree says.

    Raises:
        InvalidRule: as `from_tree`, or this is no JSON of a tree.
    """
    try:
        tree = _decoder().decode(document)
    except (msgspec.DecodeError, RecursionError) as error:
        found = str(error) if isinstance(error, msgspec.DecodeError) else "a tree too deep to be read"
        raise InvalidRule([RuleFault(0, 0, 1, 1, found, "the JSON of a rule's tree")]) from None
    return from_tree(tree)


@cache
def _parser() -> Lark:
    return Lark.open_from_package(
        "embeddings.rules",
        "grammar.lark",
        parser="lalr",
        lexer="contextual",
        transformer=_Nodes(),
        maybe_placeholders=False,
    )


@cache
def _decoder() -> msgspec.json.Decoder[Expression]:
    return msgspec.json.Decoder(Expression)


class _Nodes(Transformer[Token, Node]):
    """What each rule of the grammar becomes, of the nodes and the named tokens it has, in their order."""

    @staticmethod
    def string(children: list[Token]) -> String:
        (token,) = children
        return String(value=_unquoted(token), start=_start(token), end=_end(token))

    @staticmethod
    def number(children: list[Token]) -> Number:
        (token,) = children
        if not isfinite(value := float(token)):
            raise _Wrong(Place(_start(token), _end(token)), "too large a number", "a number up to 1e308")
        return Number(value=value, start=_start(token), end=_end(token))

    @staticmethod
    def true(children: list[Token]) -> Boolean:
        return Boolean(value=True, start=_start(children[0]), end=_end(children[0]))

    @staticmethod
    def false(children: list[Token]) -> Boolean:
        return Boolean(value=False, start=_start(children[0]), end=_end(children[0]))

    @staticmethod
    def name(children: list[Token]) -> Name:
        path = tuple(children[0].split("."))
        if len(children) > 1:
            path += (_unquoted(children[1]),)
        return Name(path=path, start=_start(children[0]), end=_end(children[-1]))

    @staticmethod
    def options(children: list[Token | Literals]) -> List:
        begin, *items, end = children
        return List(items=cast("tuple[Literals, ...]", tuple(items)), start=_start(begin), end=_end(end))

    @staticmethod
    def argument(children: list[Any]) -> Argument:
        *names, value = children
        name = str(names[0]) if names else None
        return Argument(name=name, value=value, start=_start(children[0]), end=_end(value))

    @staticmethod
    def call(children: list[Any]) -> Call:
        function, *arguments, close = children
        return Call(function=str(function), arguments=tuple(arguments), start=_start(function), end=_end(close))

    @staticmethod
    def negate(children: list[Any]) -> Not:
        sign, operand = children
        return Not(operand=operand, start=_start(sign), end=_end(operand))

    @staticmethod
    def compare(children: list[Any]) -> Compare:
        left, operator, right = children
        sign = cast("Operator", str(operator))
        return Compare(operator=sign, left=left, right=right, start=_start(left), end=_end(right))

    @staticmethod
    def one_of(children: list[Any]) -> In:
        operand, _, options = children
        return In(operand=operand, options=options, start=_start(operand), end=_end(options))

    @staticmethod
    def group(children: list[Any]) -> Node:
        begin, inner, close = children
        return msgspec.structs.replace(inner, start=_start(begin), end=_end(close))

    @staticmethod
    def all_of(children: list[Expression]) -> And:
        return And(operands=tuple(children), start=_start(children[0]), end=_end(children[-1]))

    @staticmethod
    def any_of(children: list[Expression]) -> Or:
        return Or(operands=tuple(children), start=_start(children[0]), end=_end(children[-1]))


def _start(part: Token | Node) -> int:
    return part.start if isinstance(part, Node) else part.start_pos or 0


def _end(part: Token | Node) -> int:
    return part.end if isinstance(part, Node) else part.end_pos or 0


def _unquoted(token: Token) -> str:
    """Return what a text in quotes says."""
    inner = token[1:-1]
    return _ESCAPE.sub(lambda found: _unescaped(found, _start(token) + 1), inner) if "\\" in inner else str(inner)


def _unescaped(found: re.Match[str], offset: int) -> str:
    short, long, sign = found.groups()
    if sign is not None and sign in _SIMPLE:
        return _SIMPLE[sign]
    code = int(short or long or "-1", 16)
    if not 0 <= code <= sys.maxunicode or 0xD800 <= code < 0xE000:
        place = Place(offset + found.start(), offset + found.end())
        raise _Wrong(
            place, f"`{found[0]}`", "\\\\, \\\", \\', \\n, \\r, \\t, or \\u and the four digits of a character"
        )
    return chr(code)
