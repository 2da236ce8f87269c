"""A cache of computed values, bounded in bytes; the least recently used value is dropped first."""

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar, cast

import numpy as np

_ENTRY = 200
"""Bytes that an ordered dictionary spends on an entry, about."""

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by key, up to a bound in bytes.

    The bytes of keys count too: a key may name hundreds of locations while its value takes next to nothing. Not safe
    for several threads.

    Attributes:
        limit_bytes: the bound.
        bytes: held now, keys included; above the bound only while a single value is held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._held: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def find(self, key: Hashable) -> Value | None:
        """Return the value of a key and mark it as used last; return None if the key is not held."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def keep(self, key: Hashable, value: Value) -> Value:
        """Keep a value in place of any held before for this key, and return it."""
        before = self._held.pop(key, None)
        if before is not None:
            self.bytes -= before[1]
        size = _ENTRY + bytes_of(key) + bytes_of(value)
        self._held[key] = value, size
        self.bytes += size
        while self.bytes > self.limit_bytes and len(self._held) > 1:
            _, (_, dropped) = self._held.popitem(last=False)
            self.bytes -= dropped
        return value


def bytes_of(one: object) -> int:
    """Return the bytes that an object takes with all its parts; a part that several share counts for each.

    The ``nbytes`` of an object of a class of its own counts too.
    """
    size = sys.getsizeof(one)
    if isinstance(one, np.ndarray):  # a view has no numbers of its own, yet keeps those of another alive
        return max(size, cast("Any", one).nbytes)
    if isinstance(one, tuple | list | frozenset | set):
        return size + sum(map(bytes_of, cast("tuple[object, ...]", one)))
    return size + getattr(one, "nbytes", 0)
