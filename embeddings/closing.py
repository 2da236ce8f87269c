"""What is opened once and let go of for good: a release, and what the service keeps beside it."""

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, NoReturn

from embeddings.errors import ReleaseClosed


class Closing:
    """Drops its fields on close; reading one later raises ReleaseClosed.

    It is meant for frozen dataclasses with slots. Letting go is all that closing does: an array over a mapped file
    stays valid for whoever holds it still, and memory, maps and descriptors go back to the system with their last
    holder. So nothing that is held may hold its holder, as such a cycle would keep all of it.
    """

    __slots__ = ()
    _kept: ClassVar[str]
    """The one field that outlives closing: it says what was closed."""

    def close(self) -> None:
        """Let go of every field but the one that is kept; to close again does nothing."""
        for name in type(self).__slots__:
            if name not in {self._kept, "__weakref__"}:
                with suppress(AttributeError):  # closed before
                    object.__delattr__(self, name)

    if not TYPE_CHECKING:  # which would then take every misspelt name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Tell whoever asks for a field after closing; Python asks here for what is not there alone."""
            if name in type(self).__slots__:
                raise ReleaseClosed(f"{type(self).__name__} is closed: it has no {name} any more")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
