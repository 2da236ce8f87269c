"""Torch on one thread.

Steps this small only wait for each other on several threads, whose number would round sums differently.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Generator[None]:
    """Let torch use one thread until the block ends; afterwards as many as before, and any algorithms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=False)
