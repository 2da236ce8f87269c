"""Training and models on a CUDA device: better than popularity, and as on the CPU but for rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch

from embeddings.device import missing_for_cuda
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.release.encoders import CustomerEncoder, RankerSession
from embeddings.release.store import BundleStore
from tests.world import UNTIL
from training.config import Recipe
from training.job import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        bool(missing_for_cuda()) or not torch.cuda.is_available(), reason="no CUDA device: NOT checked on this machine"
    ),
]


@pytest.fixture(scope="module")
def bundle(world: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a release whose towers and ranker were fitted on the device."""
    store = tmp_path_factory.mktemp("cuda")
    manifest = run(str(world), store, recipe, until=UNTIL, device="cuda", gated=True)
    assert manifest.metrics["served"]["ndcg@10"] > manifest.metrics["popular"]["ndcg@10"]
    return BundleStore(store).bundle(manifest.version)


def test_the_ranker_gives_the_same_on_both_devices(bundle: Path) -> None:
    random = np.random.default_rng(0)
    features_MF = random.exponential(5, (500, len(RANKER_FEATURES))).astype(np.float32)
    on_device, on_host = (RankerSession(bundle / "ranker.onnx", device).rank(features_MF) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(on_device, on_host, rtol=1e-3, atol=1e-5)


def test_the_customer_encoder_opens_on_the_device(bundle: Path) -> None:
    CustomerEncoder(bundle / "customer.onnx", "cuda", (1,) * 4)
