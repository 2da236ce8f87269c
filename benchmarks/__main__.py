"""``opportune-bench``: one suite of measurements."""

import argparse
import os
import sys
from pathlib import Path

from embeddings.errors import InvalidInput, OpportuneError

RESULTS = Path("benchmarks/results")
STORE = Path(".store/quality")


def main() -> None:
    """Run the command line; exit 2 on bad input."""
    arguments = _parser().parse_args()
    os.environ.pop("OPPORTUNE_DATABASE", None)  # suites write, and keep to the PostgreSQL beside their own stores
    try:
        sys.exit(arguments.run(arguments))
    except OpportuneError as error:
        print(f"opportune-bench: {error}", file=sys.stderr)
        sys.exit(2)


def _quality(arguments: argparse.Namespace) -> int:
    if arguments.data != "complete-journey":
        return _quality_of_file(arguments)
    from benchmarks.quality import run as quality  # noqa: PLC0415 - each suite's libraries are its own

    for option in ("test", "validation", "recipe"):
        if getattr(arguments, option) is not None:
            raise InvalidInput(f"--{option}", "expected only with --data interactions:FILE or sequences:FILE")
    tasks = arguments.task.split(",") if arguments.task else tuple(quality.TASKS)
    quality.run(arguments.store or STORE, arguments.json or RESULTS / "quality.json", tasks)
    return 0


def _quality_of_file(arguments: argparse.Namespace) -> int:
    from benchmarks.quality import interactions  # noqa: PLC0415 - each suite's libraries are its own

    if arguments.task is not None:
        raise InvalidInput("--task", "expected only with --data complete-journey")
    name = "quality_" + arguments.data.partition(":")[0]
    interactions.run(
        arguments.data,
        arguments.test,
        arguments.recipe,
        arguments.store or STORE / "files",
        arguments.json or RESULTS / f"{name}.json",
        validation=arguments.validation,
    )
    return 0


def _latency(arguments: argparse.Namespace) -> int:
    from benchmarks.latency import run as latency  # noqa: PLC0415 - each suite's libraries are its own

    json_file = arguments.json or RESULTS / ("latency_cuda.json" if arguments.device == "cuda" else "latency.json")
    latency.run(arguments.store, json_file, quick=arguments.quick, device=arguments.device)
    return 0


def _search(arguments: argparse.Namespace) -> int:
    # One thread each for FAISS and NumPy: what one of many processes on a machine has. Read when they are imported.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if arguments.device == "cuda":
        from benchmarks.search.cuda import require_torch  # noqa: PLC0415 - of all libraries torch must come first

        require_torch()
    from benchmarks.search import run as search  # noqa: PLC0415 - each suite's libraries are its own

    json_file = arguments.json or RESULTS / ("search_cuda.json" if arguments.device == "cuda" else "search.json")
    search.run(arguments.store, json_file, quick=arguments.quick, device=arguments.device)
    return 0


def _strain(arguments: argparse.Namespace) -> int:
    from benchmarks.latency import strain  # noqa: PLC0415 - each suite's libraries are its own

    strain.run(arguments.store, arguments.json, quick=arguments.quick)
    return 0


def _events(arguments: argparse.Namespace) -> int:
    from benchmarks.latency import events  # noqa: PLC0415 - each suite's libraries are its own

    events.run(arguments.store, arguments.json, quick=arguments.quick)
    return 0


def _live(arguments: argparse.Namespace) -> int:
    from benchmarks.latency import live  # noqa: PLC0415 - each suite's libraries are its own

    live.run(arguments.store, arguments.json, quick=arguments.quick)
    return 0


def _loop(arguments: argparse.Namespace) -> int:
    from benchmarks.quality import closed_loop  # noqa: PLC0415 - each suite's libraries are its own

    closed_loop.run(arguments.store, arguments.json)
    return 0


def _fit(arguments: argparse.Namespace) -> int:
    from benchmarks.fit import grow  # noqa: PLC0415 - each suite's libraries are its own
    from benchmarks.fit import run as fit  # noqa: PLC0415

    if arguments.grow and arguments.data:
        raise InvalidInput("--data", "expected only without --grow, which makes its own")
    if arguments.grow:
        grow.run(arguments.json or RESULTS / "grow.json", quick=arguments.quick)
    else:
        fit.run(arguments.data or fit.DEFAULT, arguments.json or RESULTS / "fit.json", quick=arguments.quick)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from benchmarks.harness import demo  # noqa: PLC0415 - standard library alone: it runs before anything else is needed

    return demo.run(arguments.url, arguments.admin)


_OF_SERVICE = (
    ("strain", "the service stopped for moments, overloaded, and beside slow clients", "two minutes", _strain),
    ("events", "events in large requests beside COPY, and one by one on four servers", "a minute", _events),
    ("live", "a catalogue that changes under load: when changes count, what they cost", "two minutes", _live),
)
"""Suites of a release on Complete Journey: name, what is measured, how long it takes when quick, and the function."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="opportune-bench", description="Measure; every suite writes JSON.")
    suites = parser.add_subparsers(required=True, metavar="SUITE")
    latency = suites.add_parser("latency", help="the service under load, beside an empty endpoint and its peers")
    latency.add_argument("--json", type=Path, help="where to write the result")
    latency.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the service searches")
    latency.add_argument("--store", type=Path, default=STORE, help="trained there if not yet done")
    latency.add_argument("--quick", action="store_true", help="within five minutes; the same figures, less settled")
    latency.set_defaults(run=_latency)
    quality = suites.add_parser("quality", help="what customers really did next, beside baselines")
    quality.add_argument(
        "--data",
        default="complete-journey",
        help="complete-journey, asked over HTTP, by default; interactions:FILE or sequences:FILE, of which embeddings "
        "are fitted, with lines: customer product product ...",
    )
    quality.add_argument(
        "--task",
        help="of complete-journey some of next-basket, web, push, novel, completion, cold-start, new-products, "
        "substitutes, substitutes-bare, complements, coupons, mixed, with commas; all by default",
    )
    quality.add_argument(
        "--test",
        type=Path,
        help="for interactions:FILE: what is to be predicted; of sequences it is the newest product",
    )
    quality.add_argument("--validation", type=Path, help="for interactions:FILE: as for opportune-train")
    quality.add_argument("--recipe", type=Path, help="for files: as for opportune-train")
    quality.add_argument("--json", type=Path, help="where to write the result")
    quality.add_argument("--store", type=Path, help="trained there if not yet done")
    quality.set_defaults(run=_quality)
    search = suites.add_parser("search", help="the index beside plain FAISS, from all rows to one in ten thousand")
    search.add_argument("--json", type=Path, help="where to write the result")
    search.add_argument("--store", type=Path, default=STORE, help="trained there if not yet done")
    search.add_argument("--quick", action="store_true", help="within five minutes; the same figures, less settled")
    search.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="on cuda ways to search all rows are compared"
    )
    search.set_defaults(run=_search)
    for name, does, quick, work in _OF_SERVICE:
        suite = suites.add_parser(name, help=does)
        suite.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="where to write the result")
        suite.add_argument("--store", type=Path, default=STORE, help="trained there if not yet done")
        suite.add_argument("--quick", action="store_true", help=f"within {quick}; the same figures, less settled")
        suite.set_defaults(run=work)
    loop = suites.add_parser("loop", help="retraining every month on what the service heard, beside never doing so")
    loop.add_argument("--json", type=Path, default=RESULTS / "loop.json", help="where to write the result")
    loop.add_argument("--store", type=Path, default=STORE / "loop", help="a folder to work in")
    loop.set_defaults(run=_loop)
    fit = suites.add_parser("fit", help="how fast models are fitted and how soon they are good, beside implicit's ALS")
    fit.add_argument("--json", type=Path, help="where to write the result")
    fit.add_argument(
        "--quick",
        action="store_true",
        help="eleven weeks of Complete Journey, and fewer epochs on files; with --grow the smallest shop alone",
    )
    fit.add_argument(
        "--grow",
        action="store_true",
        help="in place of all else: time and memory of training and serving generated shops of up to ten million "
        "purchases, with the default recipe",
    )
    fit.add_argument(
        "--data",
        nargs="+",
        help="some of complete-journey, interactions:FILE and sequences:FILE; the last two without a file are what "
        "the households of Complete Journey bought for the first time; all three by default",
    )
    fit.set_defaults(run=_fit)
    demo = suites.add_parser("demo", help="three sample answers of a running service on Complete Journey")
    demo.add_argument("--url", default="http://127.0.0.1:8000")
    demo.add_argument("--admin", help="URL of its management API, over which an offer is paused for a moment")
    demo.set_defaults(run=_demo)
    return parser


if __name__ == "__main__":
    main()
