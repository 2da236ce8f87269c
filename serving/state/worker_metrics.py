"""Figures summed over the workers: the worker that is asked for them has the others write theirs first."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_PATIENCE_SECONDS = 1.0
"""How long another worker may take; of one that takes longer, the counts that it laid down last are used."""

_LAID = b"."
_COUNTS = frozenset({"counter", "histogram"})
"""Types of metrics that only ever grow."""


class Family(msgspec.Struct, frozen=True):
    """One metric with its samples: name, labels and value."""

    name: str
    documentation: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


class WorkerMetrics:
    """One worker's part in the figures of all workers.

    Each worker listens on a socket of its own in a folder of theirs, and when anybody asks for figures it writes its
    own into its file. So figures cost nothing while nobody asks, and what a worker had counted when somebody last did
    outlives it: the one that replaces it counts on from its file.

    Args:
        folder: of this server alone.
        worker: this process, from 0 up.
        workers: how many there are.
        registry: this worker's own figures.
    """

    def __init__(self, folder: Path, worker: int, workers: int, registry: CollectorRegistry) -> None:
        self._folder = folder
        self._worker = worker
        self._others = [other for other in range(workers) if other != worker]
        self._registry = registry
        self._before: list[Family] = []
        self._inherited = self._laid(worker, counts_only=True)

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """Answer other workers within the block."""
        path = self._socket(self._worker)
        self._forget(path)
        server = await asyncio.start_unix_server(self._answer, path)
        try:
            yield
        finally:
            server.close()

    async def page(self) -> bytes:
        """Return all workers' figures in Prometheus' text format."""
        laid = await asyncio.gather(*(self._ask(other) for other in self._others))
        families = self._lay()
        for other, fresh in zip(self._others, laid, strict=True):
            # What a worker that is gone held and how it stood is over; what it counted has happened.
            families += self._laid(other, counts_only=not fresh)
        registry = CollectorRegistry()
        registry.register(_Summed(families))
        return generate_latest(registry)

    async def _ask(self, other: int) -> bool:
        """Ask another worker to write its figures to its file; return whether it did."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket(other))
                try:
                    return await reader.read() == _LAID
                finally:
                    writer.close()
        except OSError:  # gone, or not there yet; TimeoutError is one too
            return False

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lay()
        writer.write(_LAID)
        writer.close()

    def _own(self) -> list[Family]:
        """Return the figures of this worker, and the counts of those that it replaced."""
        own = [
            Family(
                metric.name,
                metric.documentation,
                metric.type,
                [(sample.name, dict(sample.labels), sample.value) for sample in metric.samples],
            )
            for metric in self._registry.collect()
        ]
        # What counts from zero again, as the indexes of a swapped model do, goes on from where it was.
        now = {(family.name, name, *labels.items()): value for family in own for name, labels, value in family.samples}
        for family in self._before:
            lost = [one for one in family.samples if now.get((family.name, one[0], *one[1].items()), 0.0) < one[2]]
            if lost:
                self._inherited = _summed([*self._inherited, msgspec.structs.replace(family, samples=lost)])
        self._before = _counts(own)
        return own + self._inherited

    def _lay(self) -> list[Family]:
        """Write this worker's figures, for others and for the one that may have to replace it; return them."""
        own = _summed(self._own())
        fresh = self._folder / f"{self._worker}.fresh"
        fresh.write_bytes(msgspec.msgpack.encode(own))
        fresh.rename(self._file(self._worker))
        return own

    def _laid(self, worker: int, counts_only: bool) -> list[Family]:
        """Return the figures that a worker wrote last; an empty list if it never did."""
        try:
            families = msgspec.msgpack.decode(self._file(worker).read_bytes(), type=list[Family])
        except FileNotFoundError:
            return []
        return _counts(families) if counts_only else families

    def _file(self, worker: int) -> Path:
        return self._folder / f"{worker}.figures"

    def _socket(self, worker: int) -> Path:
        return self._folder / f"{worker}.socket"

    @staticmethod
    def _forget(path: Path) -> None:
        """Remove the socket of the worker that this one replaces."""
        path.unlink(missing_ok=True)


def _counts(families: Iterable[Family]) -> list[Family]:
    return [family for family in families if family.type in _COUNTS]


def _summed(families: Iterable[Family]) -> list[Family]:
    """Merge families of the same name; add samples with the same labels, and take the first moment of creation."""
    whole: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in families:
        whole.setdefault(family.name, family)
        samples = sums.setdefault(family.name, {})
        for name, labels, value in family.samples:
            key = name, tuple(labels.items())
            if name.endswith("_created"):
                samples[key] = min(value, samples.get(key, value))
            else:
                samples[key] = samples.get(key, 0.0) + value
    return [
        msgspec.structs.replace(
            family, samples=[(sample, dict(labels), value) for (sample, labels), value in sums[name].items()]
        )
        for name, family in whole.items()
    ]


class _Summed(Collector):
    """A collector of summed families, in the form that Prometheus' writer takes."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = _summed(families)

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.type)
            metric.samples = [Sample(name, labels, value) for name, labels, value in family.samples]
            yield metric
