"""Fit the rankers: list by list, then calibrate its probabilities on lists it has not seen.

Letters: Q examples, M candidates, B examples of a batch, X inputs of the network.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from embeddings.metrics import ndcg_at
from embeddings.ranking.features import RANKER_FEATURES
from training.candidates import ExampleCandidates
from training.config import RankerConfig, epochs_of
from training.curve import Curve
from training.losses import listwise_softmax
from training.progress import tell
from training.ranker import Ranker, Rankers

_HELD_OUT = 0.1
"""The share of the examples that calibrates."""

_FEWEST_LISTS = 500
"""So many lists are enough for a ranker of their own."""

_SEEN = 0.999
"""The share of the examples whose customers were away for no longer than what counts as seen."""

_LEAST_SPREAD = 1e-3
_AT_ONCE = 2**16
_BINS = 15
_K = 10


class Batch(NamedTuple):
    """Candidates of some lists.

    Attributes:
        inputs: (M, X), transformed features.
        taken: (M), 1 where it was taken, else 0.
        owners: (M), the list that each is of, ascending.
    """

    inputs: Tensor
    taken: Tensor
    owners: Tensor


def fit_ranker(
    examples: ExampleCandidates, config: RankerConfig, seed: int, device: torch.device
) -> tuple[Ranker, Curve]:
    """Fit a ranker on the candidates that were taken; return it with the course of the fit.

    The result depends on the arguments alone. The loss is the softmax over each list of candidates (it orders them)
    plus a tenth of the binary cross-entropy of each candidate (it makes the scores comparable between lists). After
    every epoch the order of the lists that are kept back for calibration is measured.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    ranker = Ranker(config.widths, config.dropout).to(device)
    sizes_Q = np.diff(examples.offsets_Q)
    order_Q = random.permutation(len(sizes_Q))
    held_out, learnt = np.split(order_Q, [int(len(order_Q) * _HELD_OUT)])
    _standardise(ranker, examples)
    some_taken_Q = np.array([examples.taken_M[begin:end].any() for begin, end in examples.spans()])
    learnt = learnt[some_taken_Q[learnt]]  # a list without anything taken orders nothing
    optimiser = torch.optim.AdamW(ranker.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = -(-len(learnt) // config.examples_a_batch)
    epochs = epochs_of(config.epochs, config.least_steps, steps)
    total_steps = max(epochs * steps, 2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=total_steps)
    kept_back = _batch(ranker, examples, held_out)
    curve = Curve(len(learnt))
    batches = [
        shuffled[start : start + config.examples_a_batch]
        for shuffled in (random.permutation(learnt) for _ in range(epochs))
        for start in range(0, len(shuffled), config.examples_a_batch)
    ]
    for done, batch in enumerate(track(batches, "ranker"), start=1):
        inputs, taken, owners = _batch(ranker, examples, batch)
        logits = ranker.logits(inputs)
        ordering = listwise_softmax(logits, taken, owners, len(batch))
        each = nn.functional.binary_cross_entropy_with_logits(logits, taken, reduction="sum") / len(batch)
        optimiser.zero_grad(set_to_none=True)
        loss = ordering + 0.1 * each
        loss.backward()
        optimiser.step()
        schedule.step()
        curve.step(loss)
        tell("ranker", done, len(batches))
        if done % steps == 0:
            with curve.aside():
                metrics = _measure(ranker.eval(), kept_back)
            curve.close(metrics)
            ranker.train()
    _calibrate(ranker.eval(), kept_back)
    return ranker.cpu(), curve


def fit_rankers(
    windows: list[ExampleCandidates], config: RankerConfig, seed: int, device: torch.device
) -> tuple[Rankers, Mapping[str, Curve]]:
    """Fit a ranker for regular customers and one for newcomers, each on its own lists; return them with their courses.

    Lists of regular customers are many and alike, and what they take is mostly what they took before: a ranker that has
    to learn all else from the same numbers ranks them worse. Where one of both has few lists, one ranker is fitted on
    all of them and judges everything. The list of windows is emptied, as there is no room for them twice.
    """
    parts: dict[str, list[ExampleCandidates]] = {"ranker": [], "newcomers": []}
    while windows:
        window = windows.pop(0)
        begins_Q, some_Q = window.offsets_Q[:-1], np.diff(window.offsets_Q) > 0
        regular_Q = np.append(window.regular_M, False)[begins_Q]
        parts["ranker"].append(window.some(np.flatnonzero(some_Q & regular_Q)))
        parts["newcomers"].append(window.some(np.flatnonzero(some_Q & ~regular_Q)))
        del window
    joined = {name: ExampleCandidates.joined(some) for name, some in parts.items()}
    away_Q = np.concatenate(
        [one.features_MF[one.offsets_Q[:-1], RANKER_FEATURES.index("away")] for one in joined.values()]
    )
    longest = max(float(np.quantile(away_Q, _SEEN)), 1.0)
    if min(len(one.offsets_Q) - 1 for one in joined.values()) < _FEWEST_LISTS:
        ranker, curve = fit_ranker(ExampleCandidates.joined(list(joined.values())), config, seed, device)
        return Rankers(ranker, ranker, longest), {"ranker": curve}
    fitted = {name: fit_ranker(one, config, seed, device) for name, one in joined.items()}
    curves = {name: curve for name, (_, curve) in fitted.items()}
    return Rankers(fitted["ranker"][0], fitted["newcomers"][0], longest), curves


def rank(rankers: Rankers, features_MF: NDArray[np.float32], regular_M: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the probabilities (M) of some candidates, each by the ranker that judges it."""
    probabilities_M = np.empty(len(features_MF), np.float32)
    for ranker, some_M in ((rankers.regular, regular_M), (rankers.newcomers, ~regular_M)):
        probabilities_M[some_M] = probabilities(ranker, features_MF[some_M])
    return probabilities_M


def probabilities(ranker: Ranker, features_MF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ranker's probabilities (M), computed a part at a time."""
    with torch.inference_mode():
        parts = [
            ranker(torch.from_numpy(features_MF[start : start + _AT_ONCE])).numpy()
            for start in range(0, len(features_MF), _AT_ONCE)
        ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def calibration_error(
    probabilities_M: NDArray[np.float32], taken_M: NDArray[np.float32], weights_M: NDArray[np.float32] | None = None
) -> float:
    """Return the expected calibration error over ``_BINS`` bins of equal size (Naeini et al., 2015).

    Weights, if given, weigh the examples.
    """
    order = np.argsort(probabilities_M, kind="stable")
    gaps_M = probabilities_M.astype(np.float64) - taken_M
    if weights_M is not None:
        gaps_M *= weights_M
    gaps = [abs(float(gaps_M[part].sum())) for part in np.array_split(order, _BINS)]
    return sum(gaps) / max(len(order) if weights_M is None else float(weights_M.sum()), 1e-30)


def _standardise(ranker: Ranker, examples: ExampleCandidates) -> None:
    with torch.inference_mode():
        some_MF = examples.features_MF[:: max(1, len(examples.features_MF) // _AT_ONCE)]
        some = torch.from_numpy(np.ascontiguousarray(some_MF)).to(ranker.mean.device)
        inputs = ranker.transform(some)
        spread = inputs.std(0, correction=0)
        ranker.mean.copy_(inputs.mean(0))
        # Of what was always the same nothing was learnt: should it differ one day, it must not decide.
        ranker.spread.copy_(torch.where(spread > _LEAST_SPREAD, 1 / (spread + 1e-3), 0.0))


def _measure(ranker: Ranker, kept_back: Batch) -> dict[str, float]:
    """Return the mean NDCG of the first ten of some lists; empty if no list remains.

    Lists without anything taken are left out.
    """
    with torch.inference_mode():
        logits_M = ranker.logits(kept_back.inputs).cpu().numpy()
    ends = np.cumsum(np.bincount(kept_back.owners.cpu().numpy()))[:-1]
    found: list[float] = []
    for logits_K, taken_K in zip(np.split(logits_M, ends), np.split(kept_back.taken.cpu().numpy(), ends), strict=True):
        if taken_K.any():
            ranking = np.argsort(-logits_K, kind="stable")[:_K].tolist()
            found.append(ndcg_at(ranking, np.flatnonzero(taken_K).tolist(), _K))
    return {f"ndcg@{_K}": round(float(np.mean(found)), 4)} if found else {}


def _calibrate(ranker: Ranker, kept_back: Batch) -> None:
    """Fit Platt scaling (1999): the slope and shift of the log-odds, on lists that were not learnt from.

    Few lists may fit no slope, as nothing in them was taken or everything taken has the larger logits: the calibration
    then stays as it is.
    """
    taken = kept_back.taken > 0
    if not taken.any() or taken.all():
        return
    with torch.no_grad():
        logits = ranker.logits(kept_back.inputs)
    if float(logits[taken].min()) > float(logits[~taken].max()):  # the steeper the better, without an end
        return
    scale = torch.tensor([1.0, 0.0], device=logits.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([scale], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(logits * scale[0] + scale[1], kept_back.taken)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = scale.detach()
    if bool(torch.isfinite(found).all()) and float(found[0]) > 0:  # a slope below zero would turn the order round
        ranker.calibration.copy_(found)


def _batch(ranker: Ranker, candidates: ExampleCandidates, examples: NDArray[np.int64]) -> Batch:
    begins, ends = candidates.offsets_Q[examples].tolist(), candidates.offsets_Q[examples + 1].tolist()
    chosen = list(zip(begins, ends, strict=True))
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(begin, end) for begin, end in chosen)])
    owners = np.repeat(np.arange(len(chosen)), [end - begin for begin, end in chosen])
    device = ranker.mean.device
    with torch.no_grad():
        transformed = ranker.transform(torch.from_numpy(candidates.features_MF[rows]).to(device))
    taken = torch.from_numpy(candidates.taken_M[rows]).to(device)
    return Batch(transformed, taken, torch.from_numpy(owners).to(device))
