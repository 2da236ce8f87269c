"""The command line of ``opportune-serve``: its options, and the settings that they give."""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from msgspec.structs import fields

from embeddings.database.connection import DATABASE_VARIABLE, database_url
from embeddings.device import resolve_device
from embeddings.errors import InvalidInput
from embeddings.ranking.sources import SOURCES, SourceName
from serving.settings import DecisionsKind, Limits, Settings, default_index_cache_bytes

_DEFAULTS: Mapping[str, Any] = {one.name: one.default for one in fields(Settings)}
_RENAMED: Mapping[str, str] = {"together": "bought_together", "alike": "also_bought"}
"""Sources by their earlier names."""

Number = TypeVar("Number", int, float)


def parser() -> argparse.ArgumentParser:
    """Return what reads the options of ``opportune-serve``."""
    options = argparse.ArgumentParser(prog="opportune-serve", description="Answer recommend calls over HTTP.")
    options.add_argument("--store", required=True, type=Path, help="the store that opportune-train publishes into")
    options.add_argument("--host", default=_DEFAULTS["host"])
    options.add_argument("--port", type=int, default=_DEFAULTS["port"])
    options.add_argument("--admin-host", default=_DEFAULTS["admin_host"], help="where the management API listens")
    options.add_argument(
        "--admin-port",
        type=int,
        default=_DEFAULTS["admin_port"],
        help=f"the management API's port, 0 for none; default {_DEFAULTS['admin_port']}",
    )
    options.add_argument(
        "--database",
        help="a PostgreSQL URL for events, without a password, which everybody could read in the list of processes; "
        f"default: what {DATABASE_VARIABLE} says, with or without one, or an embedded PostgreSQL under the store",
    )
    options.add_argument(
        "--keep-events",
        type=_positive(int),
        metavar="DAYS",
        help="forget events after so many days; default: keep them for ever",
    )
    options.add_argument(
        "--decisions",
        choices=get_args(DecisionsKind),
        default=_DEFAULTS["decisions"],
        help="which answers are stored, to say later what was shown; sampled: one in ten; "
        f"default {_DEFAULTS['decisions']}",
    )
    options.add_argument(
        "--keep-decisions",
        type=_positive(int),
        default=_DEFAULTS["keep_decisions"],
        metavar="DAYS",
        help=f"forget those after so many days; default {_DEFAULTS['keep_decisions']}",
    )
    options.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options.add_argument(
        "--workers",
        type=_positive(int),
        default=_DEFAULTS["workers"],
        help=f"processes that answer, sharing one model; default {_DEFAULTS['workers']}",
    )
    options.add_argument(
        "--index-cache-mib",
        type=_positive(float),
        help="memory for the indexes of eligible sets, all workers together; default: a quarter of the host's free",
    )
    options.add_argument(
        "--sources",
        default=",".join(SOURCES),
        help=f"where candidates come from; default {','.join(SOURCES)}",
    )
    options.add_argument(
        "--no-ranker", action="store_true", help="order candidates by the towers alone, as if there were no ranker"
    )
    options.add_argument(
        "--connections",
        type=_positive(int),
        default=_DEFAULTS["limits"].connections,
        help=f"connections of one worker; default {_DEFAULTS['limits'].connections}",
    )
    options.add_argument(
        "--deadline",
        type=_positive(float),
        default=_DEFAULTS["deadline_seconds"],
        help="seconds a request may wait for its turn; one that would wait longer gets 503; "
        f"default {_DEFAULTS['deadline_seconds']:g}",
    )
    options.add_argument(
        "--clock",
        choices=["wall", "replay"],
        default=_DEFAULTS["clock"],
        help="replay: now is the newest moment seen",
    )
    return options


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the command line gives.

    Raises:
        DeviceUnavailable: the device is not there.
        InvalidInput: several workers were asked for with what only one can do.
    """
    device, workers = resolve_device(arguments.device), arguments.workers
    if workers > 1 and device == "cuda":
        raise InvalidInput("--workers", "expected 1 with --device cuda: one thread of one process owns the device")
    if workers > 1 and arguments.clock == "replay":
        raise InvalidInput(
            "--workers", "expected 1 with --clock replay: no worker knows the newest moment all have seen"
        )
    cache_mib = arguments.index_cache_mib
    cache_bytes = default_index_cache_bytes() if cache_mib is None else int(cache_mib * 2**20)
    return Settings(
        store=arguments.store,
        host=arguments.host,
        port=arguments.port,
        admin_host=arguments.admin_host,
        admin_port=arguments.admin_port,
        database=database_url(arguments.database, os.environ),
        keep_events=arguments.keep_events,
        decisions=arguments.decisions,
        keep_decisions=arguments.keep_decisions,
        device=device,
        clock=arguments.clock,
        workers=workers,
        index_cache_bytes=cache_bytes // workers,
        sources=_sources(arguments.sources),
        ranked=not arguments.no_ranker,
        deadline_seconds=arguments.deadline,
        limits=Limits(connections=arguments.connections),
    )


def _sources(names: str) -> tuple[SourceName, ...]:
    """Return the sources named, in the order of ``SOURCES``: the most telling first."""
    given = names.split(",")
    unknown = [name for name in given if name not in SOURCES]
    if unknown:
        renamed = "".join(f"; {name} is called {_RENAMED[name]} now" for name in unknown if name in _RENAMED)
        raise InvalidInput("--sources", f"expected some of {', '.join(SOURCES)}; got {', '.join(unknown)}{renamed}")
    return tuple(name for name in SOURCES if name in given)


def _positive(kind: type[Number]) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
        return value

    return read
