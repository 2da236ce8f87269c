"""``opportune-train``: one retraining run."""

import argparse
import logging
import os
import resource
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from embeddings.catalogue.tables import EARLIEST
from embeddings.errors import (
    DeviceUnavailable,
    InvalidInput,
    InvalidTables,
    OpportuneError,
    RefusedByGate,
    refused_by_system,
)
from training.passing import delete_passing
from training.progress import tell_end, tell_published, tell_to

PUBLISHED, FAILED, BAD_INPUT, REFUSED = range(4)
SIGNALLED = 128
"""To this the number of the signal is added, as shells do."""

_SHOW_CURSOR = b"\x1b[?25h\n"


def main() -> None:
    """Run the command line and exit: 0 published, 1 failed, 2 bad input, 3 refused by the gate."""
    with stopped_by_signals():
        arguments = _arguments()
        code, said = _outcome(arguments)
    # Where a signal came, the process has ended by now: what its deleted tables made the run say is nobody's concern.
    tell_end(said)
    print(said if code == PUBLISHED else f"opportune-train: {said}", file=sys.stderr if code else sys.stdout)
    sys.exit(code)


@contextmanager
def stopped_by_signals() -> Generator[None]:
    """Print one line and exit at SIGINT or SIGTERM, whatever the main thread is doing.

    A handler in Python would wait for native code to return, minutes for a large fit. A thread does not. It unwinds
    nothing, as a store is made for a kill at any point, but deletes the tables that were read from a database. A signal
    that the caller ignores stays ignored.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def stop() -> None:
        if number := os.read(reading, 1):
            if os.isatty(sys.__stdout__.fileno()) if sys.__stdout__ else False:
                os.write(1, _SHOW_CURSOR)
            name = signal.Signals(number[0]).name
            os.write(2, f"opportune-train: stopped by {name}; give the same command again to go on\n".encode())
            delete_passing()
            os._exit(SIGNALLED + number[0])

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    thread = Thread(target=stop, daemon=True)
    thread.start()
    outer = signal.set_wakeup_fd(writing)
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _leave_to_thread)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(outer)
        os.close(writing)
        thread.join()
        os.close(reading)


def _leave_alone() -> None:
    """End this process: whoever started it and wanted to be told of it is gone, and will start another."""
    os.write(2, b"opportune-train: stopped, as nobody reads --progress; give the same command again to go on\n")
    delete_passing()
    os._exit(SIGNALLED + signal.SIGTERM)


def _leave_to_thread(*_: object) -> None:
    """Do nothing: the system has told the thread already."""


def _outcome(arguments: argparse.Namespace) -> tuple[int, str]:
    """Run the command and return the exit code with the message to print."""
    from rich.logging import RichHandler  # noqa: PLC0415 - once signals are minded

    # implicit and FAISS bring thread pools of their own; OpenBLAS' would only contend with them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A thread of torch's that waits for others spins: beside other load it keeps those from running that it waits for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A table may have thousands of compressed parts, each of which is open as long as it is read.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Libraries speak up only where something is wrong.
    logging.basicConfig(format="%(message)s", handlers=[RichHandler(show_path=False, omit_repeated_times=False)])
    logging.getLogger("opportune").setLevel(logging.INFO)
    try:
        if arguments.check:
            return PUBLISHED, _check(arguments)
        return PUBLISHED, f"published {_run(arguments)} in {arguments.store}"
    except (InvalidInput, InvalidTables, DeviceUnavailable) as error:
        return BAD_INPUT, str(error)
    except OSError as error:
        return BAD_INPUT, refused_by_system(error, arguments.store or arguments.html)
    except RefusedByGate as error:
        return REFUSED, f"refused by the gate: {error}"
    except OpportuneError as error:
        return FAILED, str(error)


def _check(arguments: argparse.Namespace) -> str:
    """Return a summary of the tables that ``--data`` names; also write it as a page if one was asked for."""
    from training.config import RECIPES, read_recipe  # noqa: PLC0415
    from training.datasets.database import tables_of  # noqa: PLC0415
    from training.datasets.report import in_html, in_text  # noqa: PLC0415
    from training.datasets.summary import open_and_summarise  # noqa: PLC0415

    recipe = read_recipe(arguments.recipe or RECIPES / "default.toml")
    url = _database(arguments)
    with tables_of(arguments.data, recipe, url, arguments.store if url is None else None) as source:
        dataset, summary, _ = open_and_summarise(source, recipe, arguments.until)
    if arguments.html is not None:
        arguments.html.write_text(in_html(source.name, summary), encoding="utf-8")
    return "\n".join([*dataset.notes, in_text(summary)])


def _database(arguments: argparse.Namespace) -> str | None:
    """Return the URL of the database that ``--data postgres`` means, if one was given."""
    from embeddings.database.connection import database_url  # noqa: PLC0415

    return database_url(arguments.database, os.environ)


def _run(arguments: argparse.Namespace) -> str:
    """Train on the data that ``--data`` names and return the published version."""
    # After the thread settings; and torch takes seconds to import: --help should not wait.
    from training.config import RECIPES, read_recipe  # noqa: PLC0415
    from training.interactions import config  # noqa: PLC0415
    from training.interactions import job as interactions  # noqa: PLC0415
    from training.job import run  # noqa: PLC0415

    # The exporter narrates every node. After torch, which sets the levels of its own loggers when it is imported.
    for chatty in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    database = _database(arguments)
    common: dict[str, Any] = {"until": arguments.until, "device": arguments.device, "gated": not arguments.no_gate}
    kind = interactions.kind_of(arguments.data)
    if kind is None:
        if arguments.validation:
            raise InvalidInput("--validation", "expected only with --data interactions:FILE")
        recipe = read_recipe(arguments.recipe or RECIPES / "default.toml")
        return _told(run(arguments.data, arguments.store, recipe, database=database, **common).version)
    recipe = config.read_recipe(arguments.recipe or RECIPES / interactions.DEFAULT_RECIPES[kind])
    manifest = interactions.run(arguments.data, arguments.store, recipe, validation=arguments.validation, **common)
    return _told(manifest.version)


def _told(version: str) -> str:
    """Tell which version was published, and return it."""
    tell_published(version)
    return version


def _arguments() -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args()
    if not arguments.check and arguments.store is None:
        parser.error("expected --store DIR, or --check to look at the data alone")
    if not arguments.check and arguments.html is not None:
        parser.error("expected --html with --check alone")
    if arguments.check and arguments.validation is not None:
        parser.error("expected --validation without --check, which looks at tables alone")
    if arguments.html is not None and arguments.html.suffix not in (".html", ".htm"):
        parser.error(f"expected --html FILE.html, not {arguments.html}, which it would overwrite")
    if arguments.progress is not None:
        try:
            tell_to(arguments.progress, _leave_alone)
        except OSError:
            parser.error(f"expected --progress with an open descriptor; {arguments.progress} is none")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="opportune-train", description="Train on past events and publish a bundle.")
    parser.add_argument(
        "--data",
        required=True,
        help="complete-journey, complete-journey-today, a directory of tables, postgres for those of a database, "
        "interactions:FILE or sequences:FILE, "
        "with lines: customer product product ...",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        help="for interactions:FILE: the pairs of FILE that are held out to find the number of epochs, in lines as "
        "there; default: a random share of each customer's",
    )
    parser.add_argument(
        "--database",
        help="for postgres: its URL without a password; default: what OPPORTUNE_DATABASE says, with one or without, or "
        "else the PostgreSQL that is embedded beside --store",
    )
    parser.add_argument("--store", type=Path, help="the store to publish into; created if absent")
    parser.add_argument("--check", action="store_true", help="say what the tables hold, train nothing")
    parser.add_argument("--html", type=Path, help="with --check: a file to write the same into, with pictures")
    parser.add_argument(
        "--until",
        type=_moment,
        help="data cut-off, ISO 8601, UTC if without a zone: only events before it count; default: just after the "
        "newest event, but never later than now",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        help="a TOML recipe; default: default.toml, lightgcn.toml or sasrec.toml of training/recipes",
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--progress",
        type=int,
        metavar="FD",
        help="an open descriptor of a pipe to write how far the run is to, a line of JSON each; the run stops once "
        "nobody reads it",
    )
    parser.add_argument(
        "--no-gate", action="store_true", help="publish even a model that a simple rival would have beaten"
    )
    return parser


def _moment(text: str) -> datetime:
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if moment >= EARLIEST:
            return moment
    raise argparse.ArgumentTypeError(
        f"expected a moment from {EARLIEST.year} on, such as 2017-12-04T04:01:20Z; got {text!r}"
    )


if __name__ == "__main__":
    main()
