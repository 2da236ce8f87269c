"""Which device searches and encodes: decided once, at start, without torch."""

from typing import Literal

import faiss
import onnxruntime

from embeddings.errors import DeviceUnavailable

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]

CUDA_PROVIDER = "CUDAExecutionProvider"


def resolve_device(choice: DeviceChoice) -> Device:
    """Turn what the operator asked for into the device that serving and search will use.

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
    """What keeps this process from using ``cuda``, as clauses of a sentence; empty where nothing does."""
    missing: list[str] = []
    if not faiss_sees_gpu():
        missing.append("FAISS sees no GPU (faiss.get_num_gpus() is 0)")
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        missing.append(f"ONNX Runtime has no {CUDA_PROVIDER}")
    return missing


def faiss_sees_gpu() -> bool:
    """Whether FAISS can search on a GPU here; the CPU build answers that it sees none."""
    return faiss.get_num_gpus() > 0
