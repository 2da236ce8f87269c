"""``opportune-store``: look at the published versions, go back to one, delete old ones."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from embeddings.errors import OpportuneError, refused_by_system
from embeddings.release.bundle import FORMAT_VERSION
from embeddings.release.store import BundleStore

REFUSED, INTERRUPTED = 2, 130


def main() -> None:
    """Run the command line; exit 2 with a message where the store cannot do what was asked."""
    arguments = _parser().parse_args()
    store = BundleStore(arguments.store)
    try:
        store.held()  # before a lock is made beside nothing
        if arguments.command == "list":  # reads alone, also while a run publishes or where nothing can be written
            _list(store)
            return
        with store.lock():
            if arguments.command == "rollback":
                print(f"current is now {store.rollback(arguments.to)}")
            else:
                pruned = store.prune(arguments.keep)
                print("\n".join(f"pruned {version}" for version in pruned) or "nothing to prune")
    except OpportuneError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(refused_by_system(error, arguments.store))
    except KeyboardInterrupt:  # a kill at any point leaves the store whole
        sys.exit(INTERRUPTED)


def _refuse(why: str) -> None:
    print(f"opportune-store: {why}", file=sys.stderr)
    sys.exit(REFUSED)


def _list(store: BundleStore) -> None:
    current = store.current()
    for one in store.releases():
        marker = "  current" if one.version == current else ""
        older = "" if one.format_version == FORMAT_VERSION else f"  of format {one.format_version}: train again"
        print(f"{one.version}  created {_utc(one.created_at)}  data until {_utc(one.data_cut_off)}{marker}{older}")


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="opportune-store", description="Look after the published versions.")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--store", required=True, type=Path, help="the store that opportune-train publishes into")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[shared], help="show every version, the oldest release first")
    rollback = commands.add_parser("rollback", parents=[shared], help="serve an earlier version again")
    rollback.add_argument("--to", metavar="VERSION", help="which one; default: the release before the current one")
    prune = commands.add_parser("prune", parents=[shared], help="delete old versions, never the current one")
    prune.add_argument("--keep", type=int, default=3, metavar="N", help="how many of the newest stay; default 3")
    return parser


if __name__ == "__main__":
    main()
