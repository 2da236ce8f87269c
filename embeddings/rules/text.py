"""The one canonical text of a tree: what is read from it is the same tree."""

import re

from embeddings.rules.tree import And, Argument, Boolean, Call, Compare, In, List, Name, Node, Not, Number, Or, String

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_LARGEST_WHOLE = 1e15
"""Below it every whole number is written without a point or an exponent."""

_LOOSE, _OR, _AND, _TEST, _TIGHT = range(5)
"""How tightly what stands around an expression binds: what binds less tightly needs parentheses there."""


def text_of(node: Node) -> str:
    """Return the canonical text of a tree."""
    return _text(node, _LOOSE)


def text_of_path(path: tuple[str, ...]) -> str:
    """Return a name as it is written: ``customer.age_group``, or ``customer["age group"]`` where a part is no word."""
    if all(_IDENTIFIER.fullmatch(part) for part in path):
        return ".".join(path)
    *heads, last = path
    return f"{'.'.join(heads)}[{quoted(last)}]"


def quoted(value: str) -> str:
    """Return a text in quotes, with what needs it escaped."""
    return f'"{_ESCAPED.sub(_escaped, value)}"'


def text_of_number(value: float) -> str:
    """Return a finite number in its shortest form."""
    return str(int(value)) if value.is_integer() and abs(value) < _LARGEST_WHOLE else repr(value)


def _text(node: Node, around: int) -> str:
    match node:
        case String() | Number() | Boolean() | Name():
            return _alone(node)
        case List() | Argument() | Call():
            return _listed(node)
        case Not():
            return f"!{_text(node.operand, _TIGHT)}"
        case _:
            inner, binds = _joined(node)
            return f"({inner})" if around >= binds else inner


def _alone(node: String | Number | Boolean | Name) -> str:
    match node:
        case String():
            return quoted(node.value)
        case Number():
            return text_of_number(node.value)
        case Boolean():
            return "true" if node.value else "false"
        case Name():
            return text_of_path(node.path)


def _listed(node: List | Argument | Call) -> str:
    if isinstance(node, Argument):
        return text_of(node.value) if node.name is None else f"{node.name}: {text_of(node.value)}"
    inner = ", ".join(map(text_of, node.children()))
    return f"[{inner}]" if isinstance(node, List) else f"{node.function}({inner})"


def _joined(node: Node) -> tuple[str, int]:
    """Return the text of operands with signs between them, and how tightly these bind."""
    match node:
        case Compare():
            return f"{_text(node.left, _TEST)} {node.operator} {_text(node.right, _TEST)}", _TEST
        case In():
            return f"{_text(node.operand, _TEST)} in {text_of(node.options)}", _TEST
        case And():
            return " && ".join(_text(operand, _AND) for operand in node.operands), _AND
        case Or():
            return " || ".join(_text(operand, _OR) for operand in node.operands), _OR
        case _:
            raise TypeError(f"no part of a rule: {node!r}")


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"
