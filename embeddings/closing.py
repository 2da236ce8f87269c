"""A base class for what is opened once and closed for good: a release, and what the service keeps with it."""

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, NoReturn

from embeddings.errors import ReleaseClosed


class Closing:
    """Drops its fields on close; reading one later raises ReleaseClosed.

    It is meant for frozen dataclasses with slots. Closing only drops references: an array over a mapped file stays
    valid for whoever still holds it, and memory, maps and descriptors go back to the system with their last holder.
    So no field may refer back to the object, as such a cycle would keep all of it alive.
    """

    __slots__ = ()
    _kept: ClassVar[str]
    """The one field that outlives closing: it says what was closed."""

    def close(self) -> None:
        """Drop every field but the one that is kept; closing again does nothing."""
        for name in type(self).__slots__:
            if name not in {self._kept, "__weakref__"}:
                with suppress(AttributeError):  # closed before
                    object.__delattr__(self, name)

    if not TYPE_CHECKING:  # which would then take every misspelt name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Raise ReleaseClosed for a field that was dropped; Python calls this only for a missing attribute."""
            if name in type(self).__slots__:
                raise ReleaseClosed(f"{type(self).__name__} is closed: it has no {name} any more")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
