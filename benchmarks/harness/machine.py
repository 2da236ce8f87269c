"""Description of the machine that a benchmark ran on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_LIBRARIES = (
    "torch",
    "faiss-cpu",
    "faiss-gpu",
    "onnxruntime",
    "onnxruntime-gpu",
    "litestar",
    "msgspec",
    "uvicorn",
    "numpy",
)


def describe() -> dict[str, object]:
    """Return processor, cores, memory, Python and the versions of the libraries that matter to speed."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name)) is not None},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
