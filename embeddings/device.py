"""The choice of the device that searches and encodes: made once, at start, without torch."""

from pathlib import Path
from typing import Literal

import faiss
import onnxruntime
import psutil

from embeddings.errors import DeviceUnavailable

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]

CUDA_PROVIDER = "CUDAExecutionProvider"

_CGROUP = Path("/sys/fs/cgroup")


def resolve_device(choice: DeviceChoice) -> Device:
    """Return the device that serving and search will use, given the operator's choice.

    ``cuda`` takes both halves: a FAISS build that sees a GPU, and an ONNX Runtime build with the CUDA
    provider. ``auto`` takes ``cuda`` only where both are there. That the provider is listed says that the
    build has it, not that the driver's libraries load: whoever opens a session still has to check which
    provider it got.

    Where torch is installed beside the GPU builds, the caller imports torch before faiss: each brings its
    own CUDA libraries, and the ones loaded first win.

    Raises:
        DeviceUnavailable: ``cuda`` was asked for and a half is missing; the message names it.
    """
    if choice == "cpu":
        return "cpu"
    missing = missing_for_cuda()
    if not missing:
        return "cuda"
    if choice == "auto":
        return "cpu"
    raise DeviceUnavailable(
        f"device cuda was asked for, but {' and '.join(missing)}; "
        "install opportune[gpu] in place of opportune[cpu] on a machine with a CUDA device"
    )


def missing_for_cuda() -> list[str]:
    """Return the reasons why this process cannot use ``cuda``, as clauses of a sentence; empty if it can."""
    missing: list[str] = []
    if not faiss_sees_gpu():
        missing.append("FAISS sees no GPU (faiss.get_num_gpus() is 0)")
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        missing.append(f"ONNX Runtime has no {CUDA_PROVIDER}")
    return missing


def faiss_sees_gpu() -> bool:
    """Return whether FAISS can search on a GPU here; False for the CPU build, which sees none."""
    return faiss.get_num_gpus() > 0


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Return the bytes of host memory that are free: the machine's, or what the container's limit leaves if less.

    Args:
        cgroup: the folder of the control group, version 2, that limits this process; nothing limits it if there is no
            ``memory.max`` in it.
    """
    free = psutil.virtual_memory().available
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        parts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except FileNotFoundError:
        return free
    if limit == "max":
        return free
    # Pages of files that nobody has touched of late count as used, but are given up for the asking.
    return min(free, max(0, int(limit) - used + int(parts["inactive_file"])))
