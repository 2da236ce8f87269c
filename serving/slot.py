"""The one mutable cell of the service: the view that answers now."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from serving.view import View


class ViewSlot:
    """Holds the view that answers, and closes one that was replaced with the last request that has pinned it.

    Attributes:
        current: the view in service.
        swaps: how often it was replaced.
        on_swap: told every version that is taken.
    """

    def __init__(self, view: View) -> None:
        self.current = view
        self.swaps = 0
        self.on_swap: Callable[[str], None] = _nobody_asks
        self._pins: Counter[View] = Counter()

    @contextmanager
    def pinned(self) -> Generator[View]:
        """Yield the view in service to a request that waits on its way, and keep it open until that has ended."""
        view = self.current
        self._pins[view] += 1
        try:
            yield view
        finally:
            self._pins[view] -= 1
            if not self._pins[view]:
                del self._pins[view]
                if view is not self.current:
                    view.close()

    def publish(self, view: View) -> None:
        """Replace the view that answers; close the old one now, or when the last request that pinned it has ended."""
        replaced, self.current = self.current, view
        self.swaps += 1
        if replaced not in self._pins:
            replaced.close()
        self.on_swap(view.version)


def _nobody_asks(_version: str) -> None:
    """Do nothing: there is one worker, and nobody to be told."""
