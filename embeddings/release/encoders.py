"""ONNX Runtime sessions around the encoders of a bundle.

Letters: B customers, L events, D dimensions, A attributes, K products, V visits, M candidates, O offers, F features.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Table
from embeddings.customer.tower_input import TowerInput, gather
from embeddings.device import Device
from embeddings.errors import CorruptBundle, DeviceUnavailable
from embeddings.ranking.redemption import VISIT_FEATURES

_PROVIDERS: Mapping[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(path: Path, device: Device) -> Any:
    """Open an ONNX file on exactly the device asked for.

    Raises:
        DeviceUnavailable: ONNX Runtime would have fallen back to another device.
        CorruptBundle: the file is not a model that ONNX Runtime can read.
    """
    options = ort.SessionOptions()
    # One batch at a time on the event loop: more threads would only contend with the server and FAISS.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if device == "cuda":
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(path, options, providers=[_PROVIDERS[device]])
    except Exception as error:  # ONNX Runtime raises plain classes of its own for every kind of bad file
        raise CorruptBundle(path, "not a readable ONNX model", str(error)) from error
    if _PROVIDERS[device] not in session.get_providers():
        raise DeviceUnavailable(f"ONNX Runtime cannot run {path.name} on {device}: it offers {session.get_providers()}")
    return session


class CustomerEncoder:
    """History, attributes and context in, customer vectors out.

    Args:
        path: the exported tower.
        device: where it runs.
        sizes: how many codes of each part of a situation it was trained with, from `situation_sizes`. A code beyond
            them, such as that of a location that came later, is unknown to it: it never reads what stands for another.
    """

    def __init__(self, path: Path, device: Device, sizes: Sequence[int]) -> None:
        self._session = open_session(path, device)
        self._sizes_C = np.array(sizes, np.int64)

    def encode(
        self, tower_input: TowerInput, vectors_ND: NDArray[np.float32] | Table[np.float32]
    ) -> NDArray[np.float32]:
        """Return customer vectors (B, D), comparable by inner product with the product vectors.

        Args:
            tower_input: B customers.
            vectors_ND: the product vectors of the same bundle, and of what came later.
        """
        (vectors_BD,) = self._session.run(
            ["vectors"],
            {
                "history": gather(vectors_ND, tower_input.products_BL),
                "types": tower_input.types_BL,
                "ages": tower_input.ages_BL,
                "attributes": tower_input.attributes_BA,
                "context": kernel.known(tower_input.context_BC, self._sizes_C),
            },
        )
        return vectors_BD


class RankerSession:
    """Features of candidates in, probabilities out."""

    def __init__(self, path: Path, device: Device) -> None:
        self._session = open_session(path, device)

    def rank(self, features_MF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability (M) that each candidate is taken; columns as in ``features.RANKER_FEATURES``."""
        (probabilities_M,) = self._session.run(["probabilities"], {"features": features_MF})
        return probabilities_M


class RankerSessions(NamedTuple):
    """The ranker of regular customers and that of newcomers; `features.is_regular` says which judges a candidate."""

    regular: RankerSession
    newcomers: RankerSession

    def rank(self, features_MF: NDArray[np.float32], regular_M: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the probability (M) that each candidate is taken, by the ranker that judges it."""
        count = np.count_nonzero(regular_M)
        if count in (0, len(regular_M)):  # mostly
            return (self.regular if count else self.newcomers).rank(features_MF)
        probabilities_M = np.empty(len(features_MF), np.float32)
        for session, some_M in ((self.regular, regular_M), (self.newcomers, ~regular_M)):
            probabilities_M[some_M] = session.rank(features_MF[some_M])
        return probabilities_M


class OfferRankerSession:
    """Features of eligible offers in, log-odds out."""

    def __init__(self, path: Path, device: Device) -> None:
        self._session = open_session(path, device)

    def rank(self, features_OF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the log-odds (O) of each offer; columns in the order of ``offer_features.OFFER_FEATURES``."""
        (logits_O,) = self._session.run(["logits"], {"features": features_OF})
        return logits_O


class RedemptionSession:
    """Features of visits in, probabilities out that any of the eligible offers is redeemed.

    Attributes:
        base_rate: the probability of somebody without a history.
    """

    def __init__(self, path: Path, device: Device) -> None:
        self._session = open_session(path, device)
        self.base_rate = float(self.likely(np.zeros((1, len(VISIT_FEATURES)), np.float32))[0])

    def likely(self, features_VF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability (V) of a redemption in each visit; columns as in ``redemption.VISIT_FEATURES``."""
        (probabilities_V,) = self._session.run(["probabilities"], {"features": features_VF})
        return probabilities_V


class ProductEncoder:
    """A product's row and attributes in, product vectors out.

    Args:
        path: the exported tower.
        device: where it runs.
        sizes: how many codes of each attribute it was trained with; codes and attributes beyond are unknown to it.
    """

    def __init__(self, path: Path, device: Device, sizes: Sequence[int]) -> None:
        self._session = open_session(path, device)
        self._sizes_A = np.array(sizes, np.int64)

    def encode(
        self, rows_K: NDArray[np.int64], attributes_KA: NDArray[np.int64], price_K: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return product vectors (K, D).

        Args:
            rows_K: catalogue rows; -1 for a product without a history of its own.
            attributes_KA: codes of attributes, 0 for unknown.
            price_K: list prices, NaN for unknown.
        """
        known_KA = kernel.known(np.ascontiguousarray(attributes_KA[:, : len(self._sizes_A)]), self._sizes_A)
        (vectors_KD,) = self._session.run(["vectors"], {"rows": rows_K, "attributes": known_KA, "price": price_K})
        return vectors_KD
