"""Sub-indexes of eligible sets, the least recently used ones dropped beyond a bound in bytes."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from embeddings.errors import InvalidInput


class Sized(Protocol):
    """Anything that knows how many bytes keeping it costs."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


Kept = TypeVar("Kept", bound=Sized)


class SetCache(Generic[Kept]):
    """What was built for an eligible set, by its fingerprint.

    While a value is being built nothing is dropped yet, so the peak is the bound plus that one value. Owned
    by one thread: nothing here is locked.

    Attributes:
        limit_bytes: the bound; 0 keeps nothing.
        bytes: held now; never above the bound.
        hits: answers found.
        misses: answers built.
        evicted: values dropped to make room.
        oversize: values built and used but not kept, each alone being larger than the bound. Where this
            grows, every request for such a set pays for building it: raise the bound.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise InvalidInput("cache_bytes", f"expected at least 0, not {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.evicted = 0
        self.oversize = 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        """How many values are held."""
        return len(self._kept)

    def get(self, fingerprint: bytes, build: Callable[[], Kept]) -> Kept:
        """The value for this fingerprint, built if it is not held; where building fails, nothing changes."""
        value = self._kept.get(fingerprint)
        if value is not None:
            self._kept.move_to_end(fingerprint)
            self.hits += 1
            return value
        value = build()
        self.misses += 1
        if value.nbytes > self.limit_bytes:
            self.oversize += 1
            return value
        while self.bytes + value.nbytes > self.limit_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= dropped.nbytes
            self.evicted += 1
        self._kept[fingerprint] = value
        self.bytes += value.nbytes
        return value
