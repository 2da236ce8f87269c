"""``opportune-migrate``: brings a database to the schema of this version, or says what that would change."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from embeddings.database.connection import DATABASE_VARIABLE, database_url
from embeddings.database.migrate import prepare
from embeddings.database.postgres import database
from embeddings.errors import OpportuneError
from embeddings.release.store import BundleStore


def main() -> None:
    """Run the command line; exit 2 if the database cannot be migrated."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        url = database_url(arguments.database, os.environ)
        BundleStore(arguments.store).current()  # before a PostgreSQL is set up beside nothing
        with database(url, arguments.store) as found:
            names = asyncio.run(prepare(found.url, dry_run=arguments.dry_run))
    except OpportuneError as error:
        print(f"opportune-migrate: {error}", file=sys.stderr)
        sys.exit(2)
    does = "would apply" if arguments.dry_run else "applied"
    print("\n".join(f"{does} {name}" for name in names) or "the schema is that of this version")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="opportune-migrate", description="Migrate the database of a service.")
    parser.add_argument(
        "--store", type=Path, required=True, help="the bundle store, beside which an embedded PostgreSQL lies"
    )
    parser.add_argument(
        "--database",
        help=f"a PostgreSQL URL without a password; default: that in {DATABASE_VARIABLE}, else the embedded one",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be applied, and change nothing")
    return parser


if __name__ == "__main__":
    main()
