"""Rules in plain English, for whoever has to approve them: what a rule means, as it was understood."""

from functools import partial

from embeddings.rules.conditions import (
    Aggregate,
    All,
    Any,
    Attribute,
    Compared,
    Condition,
    Constant,
    Equivalent,
    Holds,
    Known,
    Membership,
    Negated,
    Numeric,
    OneOf,
    Same,
)
from embeddings.rules.schema import AGGREGATES, Path, Schema
from embeddings.rules.text import quoted, text_of_number

_SIGNS = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least", "==": "", "!=": "not"}
_FLIPPED = {"<": ">", "<=": ">=", "==": "=="}
_CONTRARY = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!="}
_IDS = ("product", "offer")


def in_words(condition: Condition, schema: Schema) -> str:
    """Return a sentence without its full stop, such as ``the hour is at least 17``."""
    return _sentence(condition, True, schema)


def words_for(path: Path, schema: Schema) -> str:
    """Return what a name is called in a sentence."""
    kind = schema.names.get(path)
    if kind is not None and kind.words:
        return kind.words
    *heads, last = (part.replace("_", " ") for part in path)
    return f"the {' '.join(heads)}'s {last}" if heads else f"the {last}"


def _sentence(condition: Condition, wanted: bool, schema: Schema) -> str:
    """Return a condition, or (not ``wanted``) its contrary, in words."""
    match condition:
        case Negated():
            return _sentence(condition.operand, not wanted, schema)
        case All() | Any():
            # Not all of some is the contrary of one of them, and the other way round.
            sign = " and " if isinstance(condition, All) == wanted else " or "
            return sign.join(_part(operand, wanted, schema) for operand in condition.operands)
        case Equivalent():
            left, right = _part(condition.left, True, schema), _part(condition.right, wanted, schema)
            return f"{left} if and only if {right}"
        case Constant():
            return "always" if condition.value is wanted else "never"
        case Compared():
            return _compared(condition, wanted, schema)
        case _:
            return _simple(condition, wanted, schema)


def _part(condition: Condition, wanted: bool, schema: Schema) -> str:
    """Return a part of a longer sentence, in parentheses where it has parts itself."""
    inner = condition
    while isinstance(inner, Negated):
        inner = inner.operand
    sentence = _sentence(condition, wanted, schema)
    return f"({sentence})" if isinstance(inner, All | Any | Equivalent) else sentence


def _simple(condition: Holds | Known | OneOf | Same, wanted: bool, schema: Schema) -> str:
    no = "" if wanted else " not"
    match condition:
        case Holds():
            return _holds(condition.operand, no, schema)
        case Known():
            return f"it is{no} known {_what(condition.operand, schema)}"
        case OneOf():
            values = list(map(quoted, condition.values))
            joined = ", ".join([*values[:-2], " or ".join(values[-2:])])
            return f"{words_for(condition.operand.path, schema)} is{no} {joined}"
        case Same():
            left, right = (words_for(side.path, schema) for side in (condition.left, condition.right))
            return f"{left} is{no} the same as {right}"


def _holds(operand: Attribute | Membership, no: str, schema: Schema) -> str:
    if isinstance(operand, Attribute):
        return f"{words_for(operand.path, schema)} is{no} true"
    if operand.kind == "segment":
        return f"the customer is{no} in the segment {quoted(operand.name)}"
    return f"the customer has{no} consented to {quoted(operand.name)}"


def _what(operand: Attribute | Aggregate | Membership, schema: Schema) -> str:
    """Return what may be known, as an indirect question."""
    match operand:
        case Attribute():
            return f"what {words_for(operand.path, schema)} is"
        case Aggregate():
            return f"{_asked(operand)} the customer has {_object(operand, 'something', schema)}"
        case Membership():
            return f"whether {_holds(operand, '', schema)}"


def _asked(aggregate: Aggregate) -> str:
    return "how much" if AGGREGATES[aggregate.function].measure == "value" else "how often"


def _compared(condition: Compared, wanted: bool, schema: Schema) -> str:
    """Return a comparison; what varies stands on the left."""
    left, sign, right = condition.left, str(condition.operator), condition.right
    if isinstance(left, float):
        left, sign, right = right, _FLIPPED[sign], left
    if not wanted:
        sign = _CONTRARY[sign]
    if isinstance(left, Aggregate):
        return _figure(left, sign, right, schema)
    number = partial(_number, schema=schema)
    return " ".join(filter(None, [number(left), "is", _SIGNS[sign], number(right)]))


def _number(operand: Numeric, schema: Schema) -> str:
    match operand:
        case Attribute():
            return words_for(operand.path, schema)
        case Aggregate():
            return f"{_asked(operand)} the customer has {_object(operand, 'something', schema)}"
        case _:
            return text_of_number(operand)


def _figure(aggregate: Aggregate, sign: str, right: Numeric, schema: Schema) -> str:
    """Return a comparison of a figure of the history."""
    if AGGREGATES[aggregate.function].measure == "value":
        amount = " ".join(filter(None, [_SIGNS[sign], _number(right, schema)]))
        return f"the customer has spent {amount}{_spent_on(aggregate, schema)}"
    if (sign, right) in ((">=", 1.0), ("<", 1.0)):
        no, something = ("", "something") if sign == ">=" else ("not ", "anything")
        return f"the customer has {no}{_object(aggregate, something, schema)}"
    amount = " ".join(filter(None, [_SIGNS[sign], _number(right, schema)]))
    return f"the customer has {_object(aggregate, 'something', schema)} {amount} times"


def _spent_on(aggregate: Aggregate, schema: Schema) -> str:
    found = _narrowed(aggregate, schema)
    return "".join([f" on {found}" if found else "", _span(aggregate)])


def _object(aggregate: Aggregate, something: str, schema: Schema) -> str:
    """Return what was done, to what and when, such as ``bought something of category "DAIRY" in the last 30 days``."""
    narrowed = _narrowed(aggregate, schema, something) or something
    return f"{AGGREGATES[aggregate.function].words} {narrowed}{_span(aggregate)}"


def _narrowed(aggregate: Aggregate, schema: Schema, something: str = "something") -> str:
    """Return what a history is narrowed to; empty if it is all of it."""
    things: list[str] = []
    features: list[str] = []
    for name, wanted in aggregate.filters:
        if isinstance(wanted, Attribute):
            this = f"this {name}" if wanted.path == (name, "id") else words_for(wanted.path, schema)
            (things if name in _IDS else features).append(this if name in _IDS else f"of {this}")
            continue
        values = " or ".join(map(quoted, wanted))
        (things if name in _IDS else features).append(f"{name} {values}" if name in _IDS else f"of {name} {values}")
    if features and not things:
        things.append(something)
    return " ".join([" with ".join(things), *features]) if things else ""


def _span(aggregate: Aggregate) -> str:
    if aggregate.days is None:
        return ""
    return " in the last day" if aggregate.days == 1 else f" in the last {aggregate.days} days"
