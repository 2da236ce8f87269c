"""Rules in plain English, for whoever has to approve them: what a rule means, as it was understood."""

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

_SIGNS = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least", "==": "exactly", "!=": "not exactly"}
_TIMES = {**_SIGNS, "<": "fewer than"}
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
            return _number(operand, schema)
        case Membership():
            return f"whether {_holds(operand, '', schema)}"


def _compared(condition: Compared, wanted: bool, schema: Schema) -> str:
    """Return a comparison; what varies stands on the left."""
    left, sign, right = condition.left, str(condition.operator), condition.right
    if isinstance(left, float):
        left, sign, right = right, _FLIPPED[sign], left
    if not wanted:
        sign = _CONTRARY[sign]
    if not isinstance(left, Aggregate) or not isinstance(right, float):
        return f"{_number(left, schema)} is {_SIGNS[sign]} {_number(right, schema)}"
    if AGGREGATES[left.function].measure == "value":
        return f"the customer has {_done(left, f' {_SIGNS[sign]} {text_of_number(right)}', 'something', schema)}"
    if (sign, right) in ((">=", 1.0), ("<", 1.0)):
        no, something = ("", "something") if sign == ">=" else ("not ", "anything")
        return f"the customer has {no}{_done(left, '', something, schema)}"
    times = f" {_TIMES[sign]} {text_of_number(right)} time{'' if right == 1.0 else 's'}"
    return f"the customer has {_done(left, times, 'something', schema)}"


def _number(operand: Numeric, schema: Schema) -> str:
    match operand:
        case Attribute():
            return words_for(operand.path, schema)
        case Aggregate():
            how = "how much" if AGGREGATES[operand.function].measure == "value" else "how often"
            return f"{how} the customer has {_done(operand, '', 'something', schema)}"
        case _:
            return text_of_number(operand)


def _done(aggregate: Aggregate, amount: str, something: str, schema: Schema) -> str:
    """Return what was done, to what and when, such as ``bought something of category "DAIRY" in the last 30 days``."""
    things, features = _narrowed(aggregate, schema)
    if AGGREGATES[aggregate.function].measure == "value":
        on = f" on {' '.join([things or something, *features])}" if things or features else ""
        amount, done = "", f"{amount}{on}"
    else:
        done = f" {' '.join([things or something, *features])}"
    days = (
        "" if aggregate.days is None else f" in the last {'day' if aggregate.days == 1 else f'{aggregate.days} days'}"
    )
    return f"{AGGREGATES[aggregate.function].words}{done}{amount}{days}"


def _narrowed(aggregate: Aggregate, schema: Schema) -> tuple[str, list[str]]:
    """Return the products or offers that a history is narrowed to, and the features they have; empty if all count."""
    things: list[str] = []
    features: list[str] = []
    for name, wanted in aggregate.filters:
        if isinstance(wanted, Attribute):
            which = f"this {name}" if wanted.path == (name, "id") else words_for(wanted.path, schema)
        else:
            which = f"{name} {' or '.join(map(quoted, wanted))}"
        if name in _IDS:
            things.append(which)
        else:
            features.append(f"of {which}")
    return " with ".join(things), features
