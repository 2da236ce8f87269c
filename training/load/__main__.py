"""``opportune-load``: brings input tables into the database, with the checks of training."""

import argparse
import asyncio
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from embeddings.database.connection import DATABASE_VARIABLE, database_url
from embeddings.database.postgres import Database, database
from embeddings.errors import InvalidInput, InvalidTables, OpportuneError, refused_by_system

_log = logging.getLogger("opportune.load")

DONE, FAILED, BAD_INPUT = range(3)


def main() -> None:
    """Run the command line and exit: 0 loaded, 1 failed, 2 bad input."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        print(_run(arguments))
    except (InvalidInput, InvalidTables) as error:
        print(f"opportune-load: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except OSError as error:
        print(f"opportune-load: {refused_by_system(error, None)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except OpportuneError as error:
        print(f"opportune-load: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("opportune-load: stopped; give the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _run(arguments: argparse.Namespace) -> str:
    """Load the data that ``--data`` names, and return what was done in one sentence."""
    from training.config import RECIPES, read_recipe  # noqa: PLC0415 - Polars takes a moment: --help should not wait
    from training.datasets import open_dataset  # noqa: PLC0415
    from training.datasets.files import reading  # noqa: PLC0415
    from training.load.job import load  # noqa: PLC0415

    where = _where(arguments.database, arguments.store)
    recipe = read_recipe(arguments.recipe or RECIPES / "default.toml")
    now = datetime.now(UTC)
    dataset = open_dataset(arguments.data, channels=recipe.channels, now=now, tables=recipe.tables, whole=False)
    for sentence in dataset.unused:
        _log.warning("%s", sentence)
    with reading(dataset.given), where as found:
        return asyncio.run(load(dataset, found.url, replace=arguments.replace, now=now)).said


def _where(option: str | None, store: Path | None) -> AbstractContextManager[Database]:
    """Return the PostgreSQL to load into; a store that is named is meant, whatever the environment says."""
    if store is not None:
        return database(None, store)
    url = database_url(option, os.environ)
    if url is None:
        raise InvalidInput(
            "--database",
            f"expected a URL, there or in {DATABASE_VARIABLE}, or --store for the PostgreSQL beside a store",
        )
    return nullcontext(Database(url, None))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opportune-load",
        description="Bring input tables into PostgreSQL. Given again, the same command goes on where it was stopped, "
        "and changes nothing that is there already.",
    )
    parser.add_argument(
        "--data", required=True, help="complete-journey, complete-journey-today or a directory of tables"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--database",
        help=f"a PostgreSQL URL without a password; default: what {DATABASE_VARIABLE} says, with one or without",
    )
    where.add_argument(
        "--store",
        type=Path,
        help=f"load into the PostgreSQL that is embedded beside a store, whatever {DATABASE_VARIABLE} says",
    )
    parser.add_argument("--recipe", type=Path, help="says how the tables are written; default: default.toml")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="withdraw what is in the database and not in the tables, of those tables that are given; events stay",
    )
    return parser


if __name__ == "__main__":
    main()
