"""Tasks beside the requests. One that fails ends its process: another one follows, and nothing is missing unheard."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager

_log = logging.getLogger("opportune.serve")


class Background:
    """The tasks beside one server, which go on for ever.

    Attributes:
        failed: whether one of them has failed.

    Args:
        leave: has the server answer what is under way and leave; called when a task fails.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self.failed = False
        self._leave = leave

    @contextmanager
    def running(self, **works: Coroutine[None, None, None]) -> Generator[None]:
        """Run tasks within the block, by what the log calls them; cancel them at its end."""
        tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
        for task in tasks:
            self.hear(task)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    def hear(self, task: asyncio.Task[None]) -> None:
        """Leave when a task fails that was started elsewhere."""
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.critical("%s failed, and this process ends", task.get_name(), exc_info=error)
        self.failed = True
        self._leave()
