import os
import subprocess
import sys

import pytest

from embeddings.device import Device, DeviceChoice, resolve_device
from embeddings.errors import DeviceUnavailable

CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]
CPU = ["CPUExecutionProvider"]


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int, providers: list[str]) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: gpus)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)


@pytest.mark.parametrize(
    ("choice", "gpus", "providers", "expected"),
    [
        ("cpu", 1, CUDA, "cpu"),
        ("cpu", 0, CPU, "cpu"),
        ("auto", 1, CUDA, "cuda"),
        ("auto", 0, CUDA, "cpu"),
        ("auto", 1, CPU, "cpu"),
        ("auto", 0, CPU, "cpu"),
        ("cuda", 1, CUDA, "cuda"),
    ],
)
def test_the_device_taken(
    monkeypatch: pytest.MonkeyPatch, choice: DeviceChoice, gpus: int, providers: list[str], expected: Device
):
    pretend(monkeypatch, gpus, providers)
    assert resolve_device(choice) == expected


@pytest.mark.parametrize(
    ("gpus", "providers", "faiss_named", "onnxruntime_named"),
    [(0, CUDA, True, False), (1, CPU, False, True), (0, CPU, True, True)],
)
def test_cuda_asked_for_and_absent_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    providers: list[str],
    faiss_named: bool,
    onnxruntime_named: bool,
):
    pretend(monkeypatch, gpus, providers)
    with pytest.raises(DeviceUnavailable, match=r"opportune\[gpu\]") as caught:
        resolve_device("cuda")
    assert ("FAISS" in str(caught.value)) == faiss_named
    assert ("CUDAExecutionProvider" in str(caught.value)) == onnxruntime_named


def test_importing_what_serves_starts_no_thread():
    """ONNX Runtime's telemetry is one: it would send its use to its maker, and make forking workers unsafe."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    code = "import os, embeddings.release.bundle; print(len(os.listdir('/proc/self/task')))"
    found = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
