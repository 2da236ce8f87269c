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
