"""Explanations of decoder errors: which value was refused, and what was expected in its place."""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

_CLOSE = 0.75
_UNKNOWN = "Object contains unknown field `"
_NO_CHOICE, _NO_TAG = "Invalid enum value ", "Invalid value "


class Refused(NamedTuple):
    """A value that a decoder refused.

    Attributes:
        path: the place of the value, such as ``context.channel``; empty for the whole.
        expected: what is wrong, as a part of a sentence.
    """

    path: str
    expected: str


def explained(error: msgspec.ValidationError, kind: Any) -> Refused:
    """Return the refused value's path and what is accepted there: the choices, or the field that may be meant.

    Args:
        error: the decoder's error.
        kind: the type that was decoded into.
    """
    said, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if said.startswith((_NO_CHOICE, _NO_TAG)):
        choices = ", ".join(_choices(_types(kind, path)) or _tags(kind, path))
        return Refused(path, f"expected one of {choices}; got {said.removeprefix(_NO_CHOICE).removeprefix(_NO_TAG)}")
    if said.startswith(_UNKNOWN):
        return Refused(path, unknown_field(said.removeprefix(_UNKNOWN).rstrip("`"), kind, path))
    return Refused(path, said)


def unknown_field(name: str, kind: Any, path: str = "") -> str:
    """Return what is wrong with a field that the object at a path does not have, and which field may be meant."""
    return f"{_UNKNOWN}{name}`{_meant(name, kind, path)}"


def _meant(name: str, kind: Any, path: str) -> str:
    """Return a hint at the field meant by an unknown one: the same name elsewhere, or nearly that name here."""
    whole = _type(kind)
    elsewhere = [
        f"{section.encode_name}.{name}"
        for section in _fields([whole])
        if section.encode_name != path and any(one.encode_name == name for one in _fields([section.type]))
    ]
    if path and any(one.encode_name == name for one in _fields([whole])):
        elsewhere.append(f"{name} outside of {path}")
    here = [one.encode_name for one in _fields(_types(kind, path))]
    found = elsewhere or get_close_matches(name, here, 1, _CLOSE)
    return f"; did you mean {found[0]}?" if found else f"; expected one of {', '.join(here)}" if here else ""


def _types(kind: Any, path: str) -> list[inspect.Type]:
    """Return the types accepted at a path, such as ``events[3].type``; ``...`` stands for any key."""
    found = [_type(kind)]
    for step in path.replace("[...]", "[]").replace("[", ".[").split("."):
        if not step:
            continue
        inner: list[inspect.Type] = []
        for one in _alternatives(found):
            if step.startswith("["):
                inner += _items(one)
            elif isinstance(one, inspect.StructType):
                inner += [field.type for field in one.fields if field.encode_name == step]
        found = inner
    return list(_alternatives(found))


@cache
def _type(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _items(kind: inspect.Type) -> list[inspect.Type]:
    match kind:
        case inspect.ListType() | inspect.VarTupleType():
            return [kind.item_type]
        case inspect.DictType():
            return [kind.value_type]
        case _:
            return []


def _alternatives(found: list[inspect.Type]) -> Iterator[inspect.Type]:
    for one in found:
        if isinstance(one, inspect.UnionType):
            yield from _alternatives(list(one.types))
        else:
            yield one


def _fields(found: list[inspect.Type]) -> Iterator[inspect.Field]:
    structs = [one for one in _alternatives(found) if isinstance(one, inspect.StructType)]
    if len(structs) == 1:  # of several the error does not say which was decoded into
        yield from structs[0].fields


def _choices(found: list[inspect.Type]) -> list[str]:
    choices: list[str] = []
    for one in found:
        match one:
            case inspect.LiteralType():
                choices += [str(value) if str(value).isidentifier() else repr(value) for value in one.values]
            case inspect.EnumType():
                choices += [str(choice.value) for choice in one.cls]
            case inspect.IntType() | inspect.FloatType():
                choices.append("a number")
            case _:
                pass
    return choices


def _tags(kind: Any, path: str) -> list[str]:
    """Return the tags of the structs among which the tag field at a path chooses."""
    outer = path.rpartition(".")[0]
    return [str(one.tag) for one in _types(kind, outer) if isinstance(one, inspect.StructType) and one.tag is not None]
