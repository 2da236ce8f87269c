"""``opportune-retrain``: the retraining job."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from embeddings.database.connection import DATABASE_VARIABLE, database_url
from embeddings.database.keeper import kept
from embeddings.database.postgres import Database, database
from embeddings.database.runs import Run
from embeddings.errors import InvalidInput, OpportuneError
from training.retrain.child import Settings
from training.retrain.job import Job
from training.retrain.schedule import Schedule

_DONE, _FAILED, _BAD_INPUT, _REFUSED = range(4)
_STOPPED = 128 + signal.SIGTERM


def main() -> None:
    """Run the command line until SIGTERM or SIGINT, or with ``--once`` for one run.

    Exit 0 after a signal, 2 if it cannot begin; with ``--once`` 0 published, 1 failed, 3 refused by the gate, 143
    stopped.
    """
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        url = database_url(arguments.database, os.environ)
        schedule = None if arguments.schedule is None else Schedule(arguments.schedule)
        settings = _settings(arguments, url)
        with ExitStack() as stack:
            found = stack.enter_context(database(url, arguments.store))
            if found.home is not None:
                stack.enter_context(kept(found.home))
            run = asyncio.run(_work(settings, found, schedule, once=arguments.once))
    except OpportuneError as error:
        print(f"opportune-retrain: {error}", file=sys.stderr)
        sys.exit(_BAD_INPUT)
    sys.exit(_code(run) if arguments.once else _DONE)


def _code(run: Run | None) -> int:
    """Return the exit code that tells how the one run ended."""
    if run is None:
        return _STOPPED
    if run.state == "published":
        return _DONE
    return _REFUSED if run.state == "refused" else _FAILED


async def _work(settings: Settings, found: Database, schedule: Schedule | None, *, once: bool) -> Run | None:
    job = Job(settings, found.url, schedule, once=once)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, job.leave)
    return await job.work()


def _settings(arguments: argparse.Namespace, url: str | None) -> Settings:
    """Return the settings of runs; raise InvalidInput if a recipe is named that is not there."""
    if arguments.recipe is not None and not arguments.recipe.is_file():
        raise InvalidInput("--recipe", f"expected a file; {arguments.recipe} is none")
    return Settings(
        store=arguments.store,
        database=url,
        data=arguments.data,
        recipe=arguments.recipe,
        device=arguments.device,
        gated=not arguments.no_gate,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opportune-retrain",
        description="Train when it is time or somebody asks, one run at a time however many jobs are started.",
    )
    parser.add_argument("--store", required=True, type=Path, help="the store to publish into; created if absent")
    parser.add_argument(
        "--database",
        help="the PostgreSQL that runs are recorded in, a URL without a password; default: what "
        f"{DATABASE_VARIABLE} says, with or without one, or the PostgreSQL that is embedded beside the store",
    )
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--schedule",
        metavar="CRON",
        help="when to train, five fields as cron has them, in UTC: '30 3 * * *'; default: on request alone",
    )
    when.add_argument("--once", action="store_true", help="ask for one run, and leave when it has ended")
    parser.add_argument("--data", default="postgres", help="as opportune-train has it; default: postgres")
    parser.add_argument("--recipe", type=Path, help="a TOML recipe; default: as opportune-train has it")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--no-gate", action="store_true", help="publish even a model that a simple rival would have beaten"
    )
    return parser


if __name__ == "__main__":
    main()
