"""Calls of aggregates are read: what they are narrowed to, and how far they look back."""

from embeddings.rules.conditions import Aggregate, Attribute
from embeddings.rules.faults import nearest, one_of, shown
from embeddings.rules.findings import Findings
from embeddings.rules.schema import AGGREGATES, LONGEST_SPAN, Kind, Path, Type
from embeddings.rules.text import text_of
from embeddings.rules.tree import Argument, Call, List, Name, Number, String

DAYS = "days"
_IDS: dict[Path, str] = {("product", "id"): "product", ("offer", "id"): "offer"}


def read_aggregate(node: Call, findings: Findings) -> Aggregate | None:
    """Return the aggregate that a call asks for; None if something is wrong with its arguments."""
    before = len(findings.faults)
    days: int | None = None
    filters: dict[str, tuple[str, ...] | Attribute] = {}
    seen = set[str]()
    for argument in node.arguments:
        name = argument.name or _told_by_place(node, argument)
        if name in seen:
            findings.wrong(argument, f"{shown(name)} a second time", "every argument once; several values are a list")
        seen.add(name)
        if name == DAYS:
            days = _days(argument, findings)
            continue
        kind = findings.schema.filters.get(name)
        if kind is None:
            known = [*findings.schema.filters, DAYS]
            meant = nearest(name, known)
            expected = f"an argument of `{node.function}`: {one_of(known)}"
            findings.wrong(argument, shown(name), expected, None if meant is None else f"`{meant}`")
            continue
        wanted = _wanted(argument, kind, findings)
        if wanted is not None:
            filters[name] = wanted
    if len(findings.faults) > before:
        return None
    return Aggregate(node.function, tuple(sorted(filters.items(), key=lambda pair: pair[0])), days)


def _told_by_place(node: Call, argument: Argument) -> str:
    """Return which filter an argument without a name is: that of the id it names, else what the function is about."""
    if isinstance(argument.value, Name) and argument.value.path in _IDS:
        return _IDS[argument.value.path]
    return AGGREGATES[node.function].subject


def _days(argument: Argument, findings: Findings) -> int | None:
    value = argument.value
    if isinstance(value, Number) and value.value.is_integer() and 1 <= value.value <= LONGEST_SPAN:
        return int(value.value)
    findings.wrong(value, shown(text_of(value)), f"a whole number of days, 1 to {LONGEST_SPAN}")
    return None


def _wanted(argument: Argument, kind: Kind, findings: Findings) -> tuple[str, ...] | Attribute | None:
    value = argument.value
    match value:
        case String():
            return (value.value,) if findings.value(value, value.value, kind) else None
        case List() if all(isinstance(item, String) for item in value.items):
            texts = [item for item in value.items if isinstance(item, String)]
            for item in texts:
                findings.value(item, item.value, kind)
            return tuple(dict.fromkeys(item.value for item in texts))
        case Name():
            named = findings.name(value)
            if named is None:
                return None
            if named.type is Type.TEXT:
                return Attribute(value.path)
        case _:
            pass
    findings.wrong(value, shown(text_of(value)), "a text, a list of texts, or a name that stands for a text")
    return None
