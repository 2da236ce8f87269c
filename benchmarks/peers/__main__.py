"""``python -m benchmarks.peers NAME``: serve one peer, or the floor, as ``opportune-serve`` would be served."""

import argparse
import os
from importlib import import_module
from pathlib import Path

# As in the service: one core, one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.peers import PEERS, floor, stack, trivial


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM."""
    arguments = _parser().parse_args()
    if arguments.name == "trivial":
        trivial.serve(arguments.port, arguments.body_bytes)
    elif arguments.name == "floor":
        stack.serve(floor.app(arguments.body_bytes), arguments.port)
    else:
        module = import_module(f"benchmarks.peers.{arguments.name.replace('-', '_')}_peer")
        past = stack.Past.open(arguments.store)
        stack.serve(stack.app(past, module.build(past)), arguments.port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description="Serve one peer of the latency suite.")
    parser.add_argument("name", choices=["trivial", "floor", *PEERS])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store", type=Path, default=Path(".store/quality"), help="whose release the peers load")
    parser.add_argument("--body-bytes", type=int, default=1500, help="size of the constant answer of the other two")
    return parser


if __name__ == "__main__":
    main()
