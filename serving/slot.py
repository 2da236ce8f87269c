"""The one mutable cell of the service: the view that answers now. There is one way into it, `ViewSlot.publish`."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from weakref import WeakSet

from embeddings.errors import OutdatedView
from serving.view import Release, View


class ViewSlot:
    """Holds the view that answers, and closes a release that was replaced with the last request that has pinned it.

    Attributes:
        current: the view in service.
        swaps: how often its release was replaced.
        on_swap: told every version that is taken.
    """

    def __init__(self, view: View) -> None:
        self.current = view
        self.swaps = 0
        self.on_swap: Callable[[str], None] = _nobody_asks
        self._pins: Counter[Release] = Counter()
        self._replaced: WeakSet[Release] = WeakSet()

    @contextmanager
    def pinned(self) -> Generator[View]:
        """Yield the view in service to a request that waits on its way, and keep it open until that has ended."""
        view, release = self.current, self.current.release
        self._pins[release] += 1
        try:
            yield view
        finally:
            self._pins[release] -= 1
            if not self._pins[release]:
                del self._pins[release]
                if release is not self.current.release:
                    view.close()

    def publish(self, view: View) -> None:
        """Replace the view that answers: by one of another release, or by that with the next catalogue.

        A release that was replaced is closed now, or when the last request that pinned it has ended.

        Raises:
            OutdatedView: the view is of a release that has been replaced, or does not follow the one that answers, as
                where two catalogues were worked out from the same one; nothing was changed.
        """
        replaced = self.current
        if view.release is replaced.release:
            if view.number != replaced.number + 1:
                raise OutdatedView(f"catalogue {view.number} does not follow {replaced.number}, which answers now")
            view.release.adopt(view.catalogue, view.rows)
            self.current = view
            return
        if view.release in self._replaced:
            raise OutdatedView(f"release {view.version} has been replaced by {replaced.version}")
        view.release.adopt(view.catalogue, view.rows)  # its catalogue may have changed before it came to answer
        self._replaced.add(replaced.release)
        self.current = view
        self.swaps += 1
        if replaced.release not in self._pins:
            replaced.close()
        self.on_swap(view.version)


def _nobody_asks(_version: str) -> None:
    """Do nothing: there is one worker, and nobody to be told."""
