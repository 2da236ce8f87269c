"""What is wrong with a rule, in words of the field: places, what was expected, and what may have been meant."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from embeddings.errors import RuleFault

_CLOSE = 0.7
_SEARCHED = 2_000
"""Among so many values, at most, one is looked for that resembles another: it takes a microsecond for each."""

_SHOWN = 40
"""Characters of what was found that are shown."""

_LISTED = 12
"""Names or values that are listed as what is expected, at most."""

_OPERAND = frozenset({"STRING", "NUMBER", "TRUE", "FALSE", "NAME", "OPEN", "NOT"})
_LITERAL = frozenset({"STRING", "NUMBER", "TRUE", "FALSE"})
_WORDS = {
    "NAME": "a name such as customer.age_group",
    "STRING": "a text in quotes",
    "NUMBER": "a number",
    "OPEN": "`(`",
    "CLOSE": "`)`",
    "BEGIN": "`[`",
    "END": "`]`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "NOT": "`!`",
    "IN": "`in`",
    "COMPARISON": "a comparison such as ==",
    "OR": "`||`",
    "AND": "`&&`",
    "$END": "the end of the rule",
}
_MEANT = {
    "and": "`&&`",
    "or": "`||`",
    "not": "`!`",
    "=": "`==`",
    "===": "`==`",
    "<>": "`!=`",
    "=<": "`<=`",
    "=>": "`>=`",
    "&": "`&&`",
    "|": "`||`",
    "null": "`!has(…)`",
}
_QUOTES = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u00b4`"
"""Signs of quotation that word processors write in place of straight ones."""


class Place(NamedTuple):
    """Characters of a text, from ``start`` to before ``end``."""

    start: int
    end: int


def fault_at(text: str, place: Place, found: str, expected: str, meant: str | None = None) -> RuleFault:
    """Return a fault with the line and column of its place."""
    line_start = text.rfind("\n", 0, place.start) + 1
    line = text.count("\n", 0, place.start) + 1
    return RuleFault(place.start, place.end - place.start, line, place.start - line_start + 1, found, expected, meant)


def nearest(wanted: str, known: Collection[str]) -> str | None:
    """Return which known name or value may have been meant by one that is not known; upper and lower case are alike."""
    if len(known) > _SEARCHED:
        return None
    folded = {one.casefold(): one for one in known}
    found = get_close_matches(wanted[:256].casefold(), folded, 1, _CLOSE)
    return folded[found[0]] if found else None


def one_of(known: Collection[str]) -> str:
    """Return names or values as what is expected, in their order if they have one; of many only the first are named."""
    if len(known) > _SEARCHED:
        return f"one of {len(known)} that are known"
    names = list(known) if isinstance(known, Sequence) else sorted(known)
    more = f" or {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    shown = ", ".join(names[:_LISTED])
    return f"one of {shown}{more}" if len(names) > 1 else shown or "none, as there are none"


def syntax_fault(text: str, error: UnexpectedInput) -> RuleFault:
    """Return what the parser's error means."""
    expected: Collection[str] = ()
    before = ""
    start, end = len(text), len(text)
    if isinstance(error, UnexpectedToken):
        expected = error.accepts or error.expected
        if error.token.type != "$END":
            start, end = error.token.start_pos or 0, error.token.end_pos or 0
        before = str(error.token_history[0]) if error.token_history else ""
    elif isinstance(error, UnexpectedCharacters):
        expected = error.allowed or ()
        start = error.pos_in_stream or 0
        end = _end_of_signs(text, start)
        before = str(error.token_history[0]) if error.token_history else ""
    place = Place(start, end)
    found = text[start:end]
    if found in ('"', "'"):
        line_end = text.find("\n", start)
        place = Place(start, len(text) if line_end < 0 else line_end)
        return fault_at(text, place, f"a text that begins with `{found}`", f"`{found}` at its end, on the same line")
    if found and found in _QUOTES:
        return fault_at(text, place, shown(found), 'a text in straight quotes, such as "this"', '`"`')
    before = before.lower()
    meant = _MEANT.get(before + found.lower()) or _MEANT.get(found.lower()) or _MEANT.get(before)
    return fault_at(text, place, shown(found), _expected(expected), meant)


def _end_of_signs(text: str, start: int) -> int:
    """Return where the signs end that begin at a place: one, or several that together look like an operator."""
    end = start + 1
    if text[start] in "=<>&|":
        while end < len(text) and text[end] in "=<>&|" and end - start < 3:
            end += 1
    return end


def shown(found: str) -> str:
    """Return what was found as it stands in the text, of much only the beginning."""
    if not found:
        return "the end of the rule"
    found = f"{found[:_SHOWN]}…" if len(found) > _SHOWN else found
    return f"`{found if found.isprintable() else ascii(found)[1:-1]}`"


def _expected(terminals: Collection[str]) -> str:
    """Return the terminals that a parser accepts, in words."""
    wanted = set(terminals)
    words: list[str] = []
    if wanted >= _OPERAND:
        words += [
            "a name such as customer.age_group",
            "a call such as bought(days: 30)",
            "a text in quotes",
            "a number",
        ]
        words += ["`(`", "`!`"]
        wanted -= _OPERAND
    elif wanted >= _LITERAL:
        words.append("a text in quotes or a number")
        wanted -= _LITERAL
    words += sorted(_WORDS[name] for name in wanted if name in _WORDS)
    return ", ".join(words)
