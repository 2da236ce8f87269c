"""What a check finds: faults and warnings, each at the node that it is about."""

from collections.abc import Collection

from embeddings.errors import RuleFault
from embeddings.rules.faults import Place, fault_at, nearest, one_of, shown
from embeddings.rules.schema import AGGREGATES, Kind, Schema
from embeddings.rules.text import quoted, text_of_path
from embeddings.rules.tree import Call, Name, Node

_FUNCTIONS = ("has", "segment", "consent", *AGGREGATES)
_OTHERWISE = {"not": "`!`", "null": "`!has(…)`"}
"""What other languages write as a function or a name, and rules in another way."""


_HINTS = 20
"""So many times something that may have been meant is looked for: among thousands of values it takes milliseconds."""


class Findings:
    """Collects what is wrong with one rule.

    Attributes:
        faults: what makes the rule mean nothing.
        warnings: what is likely a mistake, but may become right later.
    """

    def __init__(self, text: str, schema: Schema) -> None:
        self.faults: list[RuleFault] = []
        self.warnings: list[RuleFault] = []
        self.schema = schema
        self._text = text
        self._hints = 0

    def wrong(self, node: Node, found: str, expected: str, meant: str | None = None) -> None:
        """Add a fault at a node."""
        self.faults.append(self._at(node, found, expected, meant))

    def name(self, node: Name) -> Kind | None:
        """Return what a name stands for; None if it is not known, or not to be used here."""
        kind = self.schema.names.get(node.path)
        if kind is not None:
            return kind
        written = text_of_path(node.path)
        found = shown(written)
        if node.path in self.schema.barred:
            heads = sorted({f"{head}…" if rest else head for head, *rest in self.schema.names})
            self.wrong(node, found, f"what is known where this rule is asked: {one_of(heads)}")
            return None
        names = [text_of_path(path) for path in self.schema.names]
        alike = [name for path, name in zip(self.schema.names, names, strict=True) if path[:1] == node.path[:1]]
        others = [*names, *(f"{function}(…)" for function in _FUNCTIONS)]
        ending = [name for path, name in zip(self.schema.names, names, strict=True) if path[-1:] == node.path]
        meant = _OTHERWISE.get(written) or _ticked(next(iter(ending), None) or self._nearest(written, others))
        self.wrong(node, f"{found}, which is not known", one_of(alike or names), meant)
        return None

    def function(self, node: Call) -> None:
        """Add the fault that there is no such function."""
        meant = _OTHERWISE.get(node.function) or _ticked(self._nearest(node.function, _FUNCTIONS))
        place = Name(path=(node.function,), start=node.start, end=node.start + len(node.function))
        self.wrong(place, f"{shown(node.function)}, which is no function", one_of(_FUNCTIONS), meant)

    def value(self, node: Node, value: str, kind: Kind) -> bool:
        """Return whether something may have a value; else it is a fault, or a warning where more values may come."""
        if kind.values is None or value in kind.values:
            return True
        meant = self._nearest(value, kind.values)
        expected = f"a value of {kind.words}: {one_of(kind.values)}" if kind.words else one_of(kind.values)
        fault = self._at(node, shown(quoted(value)), expected, None if meant is None else quoted(meant))
        (self.faults if kind.closed else self.warnings).append(fault)
        return not kind.closed

    def _nearest(self, wanted: str, known: Collection[str]) -> str | None:
        self._hints += 1
        return nearest(wanted, known) if self._hints <= _HINTS else None

    def _at(self, node: Node, found: str, expected: str, meant: str | None) -> RuleFault:
        return fault_at(self._text, Place(node.start, node.end), found, expected, meant)


def _ticked(meant: str | None) -> str | None:
    return None if meant is None else f"`{meant}`"
