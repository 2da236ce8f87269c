"""The settings of the service: built once from the command line, passed down, never read again."""

from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from embeddings.device import Device, free_memory
from embeddings.ranking.sources import SOURCES, SourceName

ClockKind = Literal["wall", "replay"]
DecisionsKind = Literal["none", "sampled", "all"]


def default_index_cache_bytes() -> int:
    """Return a quarter of the host memory that is free now, on any device: two models may have to fit for a while."""
    return free_memory() // 4


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits on what the clients of one worker cost before they have asked anything, and on the time they take.

    Attributes:
        connections: how many there may be; beyond it, the one that has waited longest for its client gives way.
        head_seconds, body_seconds: within which the head of a request, and then its body, has to arrive.
        answer_seconds: within which an answer has to be given and taken.
        idle_seconds: how long a connection may ask nothing.
        leave_seconds: within which a body has to arrive once the service was told to stop.
        bodies_bytes: how much all bodies that have not arrived whole may take; beyond it the first is cut off.
        head_bytes, head_lines: how large the head of a request may be, and how many header lines it may have.
    """

    connections: int = 1_000
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    answer_seconds: float = 30.0
    idle_seconds: float = 75.0
    leave_seconds: float = 3.0
    bodies_bytes: int = 2**26
    head_bytes: int = 2**15
    head_lines: int = 100


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One server's settings.

    Attributes:
        store: the bundle store to serve from.
        admin_host, admin_port: where the management API listens; on no port if that is 0.
        database: a PostgreSQL URL; None for an embedded PostgreSQL under ``store/state``.
        keep_events: how many days events are kept in the database; for ever if None.
        decisions: which decisions, what was shown to whom, are stored: one in ten if they are sampled.
        keep_decisions: how many days these are kept.
        device: where vectors are searched and customers encoded.
        clock: whether "now" is the machine's time or the newest moment seen in a request or event.
        workers: how many processes answer.
        sources: where candidates come from.
        ranked: whether the ranker orders candidates; else the towers do.
        index_cache_bytes: memory for the indexes of eligible sets, all searches of one worker together.
        live_histories: how many customers' histories stay in one worker's memory.
        swap_poll_seconds: how often the store is looked at for a newly published version.
        deadline_seconds: how long a request may wait for its turn; one that would wait longer is refused with 503.
        limits: what clients may cost before they have asked anything.
    """

    store: Path
    host: str = "127.0.0.1"
    port: int = 8000
    admin_host: str = "127.0.0.1"
    admin_port: int = 8001
    database: str | None = None
    keep_events: int | None = None
    decisions: DecisionsKind = "all"
    keep_decisions: int = 30
    device: Device = "cpu"
    clock: ClockKind = "wall"
    workers: int = 1
    sources: tuple[SourceName, ...] = SOURCES
    ranked: bool = True
    index_cache_bytes: int = field(default_factory=default_index_cache_bytes)
    live_histories: int = 30_000
    swap_poll_seconds: float = 0.5
    deadline_seconds: float = 0.08
    limits: Limits = Limits()
