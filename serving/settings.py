"""What the service is started with: built once from the command line, passed down, never read again."""

from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from embeddings.device import Device, free_memory
from embeddings.sources import SOURCES, SourceName

ClockKind = Literal["wall", "replay"]


def default_index_cache_bytes() -> int:
    """A quarter of the host memory that is free now, whatever the device: two models may have to fit for a while."""
    return free_memory() // 4


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One server's settings.

    Attributes:
        store: the bundle store to serve from.
        database: a PostgreSQL URL; None for an embedded PostgreSQL under ``store/state``.
        device: where vectors are searched and customers encoded.
        clock: whether "now" is the machine's time or the newest moment seen in a request or event.
        workers: how many processes answer.
        sources: where candidates come from.
        ranked: whether the ranker orders candidates; else the towers do.
        index_cache_bytes: memory for the indexes of eligible sets, all searches of one worker together.
        live_histories: how many customers' histories stay in one worker's memory.
        swap_poll_seconds: how often the store is looked at for a newly published version.
        in_flight: how many requests of one worker may be under way at once; one more is refused at once with 503.
        deadline_seconds: how long a request may wait for its batch before it is refused with 503.
    """

    store: Path
    host: str = "127.0.0.1"
    port: int = 8000
    database: str | None = None
    device: Device = "cpu"
    clock: ClockKind = "wall"
    workers: int = 1
    sources: tuple[SourceName, ...] = SOURCES
    ranked: bool = True
    index_cache_bytes: int = field(default_factory=default_index_cache_bytes)
    live_histories: int = 30_000
    swap_poll_seconds: float = 0.5
    in_flight: int = 32
    deadline_seconds: float = 1.0
