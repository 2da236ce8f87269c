"""Runs of the load generator, each a process of its own on the core that the server does not use."""

import subprocess
import sys
from collections.abc import Generator as Yields
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.harness.cores import Cores, pinned
from benchmarks.harness.server import launch
from benchmarks.latency.plan import Plan, Stage
from benchmarks.latency.samples import Samples
from benchmarks.latency.traffic import Call

_STRIDE = 4801
"""Each run begins this many calls further on, so that no stage always meets the same, best remembered ones."""


class Generator:
    """Starts generators, and sees to it that no event is ever reported twice.

    Args:
        folder: for plans and samples.
        cores: where server and generator run.
        seed: of the first run's gaps; each further run draws others.
    """

    def __init__(self, folder: Path, cores: Cores, seed: int = 0) -> None:
        self.cores = cores
        self._folder = folder
        self._seed = seed
        self._events = 0

    def run(self, port: int, calls: Sequence[Call], stages: Sequence[Stage]) -> Samples:
        """Carry out some stages against a server on this machine.

        Raises:
            CalledProcessError: the generator failed.
        """
        start = self._seed * _STRIDE % len(calls)
        plan = Plan(
            port=port,
            calls=[*calls[start:], *calls[:start]],
            stages=list(stages),
            seed=self._seed,
            first_event=self._events,
        )
        asked, seen = self._folder / "plan.msgpack", self._folder / "samples.npy"
        asked.write_bytes(msgspec.msgpack.encode(plan))
        with pinned(self.cores.generator):
            command = [sys.executable, "-m", "benchmarks.latency.load", str(asked), str(seen)]
            subprocess.run(command, check=True)  # noqa: S603 - our own command
        samples = Samples.load(seen)
        self._seed += 1
        self._events += int(samples.event_R.sum()) + len(plan.calls)  # also those that never came to an end
        return samples

    def ceiling(self, calls: Sequence[Call], connections: int, seconds: float, body_bytes: int) -> float:
        """Measure the requests a second that the generator itself can do, with a server that parses nothing."""
        module = ["benchmarks.peers", "trivial", "--body-bytes", str(body_bytes)]
        with launch(module, self._folder / "trivial.log", self.cores.server) as served:
            return self.run(served.port, calls, [Stage(seconds, connections)]).rate(seconds / 4)


@contextmanager
def generator(cores: Cores) -> Yields[Generator]:
    """Yield a generator with a folder of its own, which lasts as long as the block."""
    with TemporaryDirectory(prefix="opportune-load-") as folder:
        yield Generator(Path(folder), cores)
