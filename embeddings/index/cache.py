"""A cache of what was built for eligible sets, bounded in bytes; the least recently used value is dropped first."""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from embeddings.errors import InvalidInput


class Sized(Protocol):
    """Anything that knows how many bytes it takes."""

    @property
    def nbytes(self) -> int:
        """Return the bytes that it takes."""
        ...


Kept = TypeVar("Kept", bound=Sized)


class SetCache(Generic[Kept]):
    """Values built for eligible sets, by the fingerprint of the set.

    A value is built before it is kept, so the peak is the bound plus that one value. Owned by one thread: nothing here
    is locked.

    Attributes:
        limit_bytes: the bound; 0 keeps nothing.
        bytes: held now, reserved ones included; above the bound only because of these.
        hits: how often what was looked for was held.
        misses: how often it was not.
        evicted: values dropped to make room.
        oversize: values not kept, each alone being larger than the bound. Where this grows, every request for such a
            set pays for building it: raise the bound.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise InvalidInput("cache_bytes", f"expected at least 0, not {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.bytes = self._reserved = 0
        self.count_anew()
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of values held."""
        return len(self._kept)

    def find(self, fingerprint: bytes) -> Kept | None:
        """Return the value of a fingerprint and mark it as used last; return None if it is not held."""
        value = self._kept.get(fingerprint)
        if value is None:
            self.misses += 1
            return None
        self._kept.move_to_end(fingerprint)
        self.hits += 1
        return value

    def keep(self, fingerprint: bytes, value: Kept) -> None:
        """Keep a value in place of any held before for this fingerprint, unless it alone is larger than the bound."""
        replaced = self._kept.pop(fingerprint, None)
        if replaced is not None:
            self.bytes -= replaced.nbytes
        if value.nbytes > self.room:
            self.oversize += 1
            return
        while self.bytes + value.nbytes > self.limit_bytes:
            self._drop_oldest()
        self._kept[fingerprint] = value
        self.bytes += value.nbytes

    @property
    def room(self) -> int:
        """Return the most bytes that one value may take."""
        return max(self.limit_bytes - self._reserved, 0)

    def reserve(self, size: int) -> None:
        """Count bytes that are held elsewhere for good, and drop values to make room for them."""
        self._reserved += size
        self.bytes += size
        while self.bytes > self.limit_bytes and self._kept:
            self._drop_oldest()

    def count_anew(self) -> None:
        """Set the counters to zero; the values stay."""
        self.hits = self.misses = self.evicted = self.oversize = 0

    def _drop_oldest(self) -> None:
        _, dropped = self._kept.popitem(last=False)
        self.bytes -= dropped.nbytes
        self.evicted += 1

    def clear(self) -> None:
        """Drop everything held or reserved."""
        self._kept.clear()
        self.bytes = self._reserved = 0
