"""``opportune-train``: one retraining run."""

import argparse
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.logging import RichHandler

from embeddings.errors import DeviceUnavailable, InvalidInput, InvalidTables, OpportuneError, RefusedByGate

PUBLISHED, FAILED, BAD_INPUT, REFUSED = range(4)


def main() -> None:
    """Run the command line and exit: 0 published, 1 failed, 2 bad input, 3 refused by the gate."""
    arguments = _parser().parse_args()
    # implicit and FAISS bring thread pools of their own; OpenBLAS' would only contend with them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Libraries speak up only where something is wrong.
    logging.basicConfig(format="%(message)s", handlers=[RichHandler(show_path=False, omit_repeated_times=False)])
    logging.getLogger("opportune").setLevel(logging.INFO)
    try:
        version = _run(arguments)
    except (InvalidInput, InvalidTables, DeviceUnavailable) as error:
        print(f"opportune-train: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except RefusedByGate as error:
        print(f"opportune-train: refused by the gate: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    except OpportuneError as error:
        print(f"opportune-train: {error}", file=sys.stderr)
        sys.exit(FAILED)
    print(f"published {version} in {arguments.store}")
    sys.exit(PUBLISHED)


def _run(arguments: argparse.Namespace) -> str:
    """Train on what ``--data`` names; returns the published version."""
    # After the thread settings; and torch takes seconds to import: --help should not wait.
    from training.config import RECIPES, read_recipe  # noqa: PLC0415
    from training.interactions import config  # noqa: PLC0415
    from training.interactions import job as interactions  # noqa: PLC0415
    from training.job import run  # noqa: PLC0415

    # The exporter narrates every node. After torch, which sets the levels of its own loggers when it is imported.
    for chatty in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    common: dict[str, Any] = {"until": arguments.until, "device": arguments.device, "gated": not arguments.no_gate}
    kind = interactions.kind_of(arguments.data)
    if kind is None:
        if arguments.validation:
            raise InvalidInput("--validation", "expected only with --data interactions:FILE")
        recipe = read_recipe(arguments.recipe or RECIPES / "default.toml")
        return run(arguments.data, arguments.store, recipe, **common).version
    recipe = config.read_recipe(arguments.recipe or RECIPES / interactions.DEFAULT_RECIPES[kind])
    manifest = interactions.run(arguments.data, arguments.store, recipe, validation=arguments.validation, **common)
    return manifest.version


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="opportune-train", description="Train on past events and publish a bundle.")
    parser.add_argument(
        "--data",
        required=True,
        help="complete-journey, complete-journey-today, a directory of tables, interactions:FILE or sequences:FILE, "
        "with lines: customer product product ...",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        help="for interactions:FILE: the pairs of FILE that are held out to find the number of epochs, in lines as "
        "there; default: a random share of each customer's",
    )
    parser.add_argument("--store", required=True, type=Path, help="the store to publish into; created if absent")
    parser.add_argument(
        "--until",
        type=_moment,
        help="data cut-off, ISO 8601, UTC if without a zone; default: the newest event",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        help="a TOML recipe; default: default.toml, lightgcn.toml or sasrec.toml of training/recipes",
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--no-gate", action="store_true", help="publish even a model worse than popularity")
    return parser


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a moment such as 2017-12-04T04:01:20Z; got {text!r}") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    main()
