"""The ranker: what it derives from features, what it learns and how sure it is."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embeddings.arrays import Table
from embeddings.ranking.features import COUNTED, RANKER_FEATURES, FeatureReader
from embeddings.ranking.profile import DECAYS, GROUP_DECAY
from embeddings.ranking.statistics import GROUPINGS
from embeddings.release.encoders import RankerSession, RankerSessions
from tests.unit.embeddings.small import DAY, NOW, VECTORS, N, ask, catalogue, past, statistics
from training.candidates import ExampleCandidates
from training.config import RankerConfig
from training.export import export_ranker
from training.fit_ranker import calibration_error, fit_ranker, fit_rankers, probabilities, rank
from training.losses import listwise_softmax
from training.ranker import Dropout, Ranker
from training.transform import FeatureTransform

AT = {name: place for place, name in enumerate(RANKER_FEATURES)}
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = RankerConfig(widths=(8,), epochs=6, least_steps=0, examples_a_batch=16, learning_rate=1e-2)


def random_features(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Features of every size; counts and days are not negative, and half of them are nothing."""
    random = np.random.default_rng(seed)
    features_MF = random.exponential(10, (count, len(RANKER_FEATURES))).astype(np.float32)
    features_MF[random.random(features_MF.shape) < 0.5] = 0
    features_MF[:, COUNTED:] = random.standard_normal((count, len(RANKER_FEATURES) - COUNTED))
    return features_MF


# What it derives


def transform(features_MF: NDArray[np.float32]) -> NDArray[np.float32]:
    return FeatureTransform()(torch.from_numpy(features_MF)).numpy()


def slow_derive(features: dict[str, float]) -> list[float]:
    """Features aged, logarithms and ratios, one number at a time."""
    away, aged = features["away"], dict(features)
    decays = {"own_slow": DECAYS[0], "own_middling": DECAYS[1], "own_fast": DECAYS[2], "own_here": DECAYS[0]}
    decays |= {"own_hour": DECAYS[0], "visits": DECAYS[0], "visits_here": DECAYS[0], "visits_hour": DECAYS[0]}
    for group in GROUPINGS:
        decays |= {f"{group}_slow": DECAYS[0], f"{group}_lately": GROUP_DECAY}
    for name, decay in decays.items():
        aged[name] *= decay**away
    for name in ("own_since", *(f"{group}_since" for group in GROUPINGS)):
        aged[name] += away
    shares = {"product_share", *(f"product_{group}_share" for group in GROUPINGS)}
    scales = dict.fromkeys(shares, 1e5) | dict.fromkeys(("own_hazard", "type_hazard"), 1e3)
    inputs = [math.log1p(aged[name] * scales.get(name, 1)) for name in RANKER_FEATURES[:COUNTED]]
    ratios = [
        ("own_since", "own_gap", 0.5),
        ("own_slow", "visits", 0.5),
        ("own_here", "visits_here", 0.5),
        ("visits_here", "visits", 0.1),
        ("own_hour", "visits_hour", 0.5),
        ("own_basket_size", "basket_size", 1.0),
        ("basket_size_hour", "basket_size", 1.0),
        ("product_price_lately", "own_price", 0.01),
        ("product_price_lately", "product_price", 0.01),
        *((f"{group}_since", f"{group}_gap", 0.5) for group in GROUPINGS),
        *((f"{group}_slow", "visits", 0.5) for group in GROUPINGS),
        *(("own_slow", f"{group}_slow", 0.1) for group in GROUPINGS),
    ]
    inputs += [math.log(min(aged[above] / max(aged[below], least), 50) + 0.02) for above, below, least in ratios]
    here = (features["popular_here"] + 100 * features["product_share"]) / (features["sold_here"] + 100)
    inputs.append(math.log(here + 1e-6))
    return [*inputs, *(aged[name] for name in RANKER_FEATURES[COUNTED:]), features["inner"] - features["retrieved"]]


def test_what_the_network_reads_is_the_documented_arithmetic():
    features_MF = random_features(200)
    found_MX = transform(features_MF)
    for features, inputs in zip(features_MF.tolist(), found_MX.tolist(), strict=True):
        expected = slow_derive(dict(zip(RANKER_FEATURES, features, strict=True)))
        assert inputs == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("days", [0.0, 0.25, 3.0, 40.0])
def test_features_of_the_newest_purchase_and_days_away_are_features_counted_at_the_later_moment(days: float):
    bought = [("purchase", 1, 30.0, 0), ("purchase", 1, 2.0, 0), ("purchase", 4, 9.0, 1), ("purchase", 7, 0.0, 0)]
    asked = ask(past(*bought), 0, NOW + round(days * DAY))
    features_KF = np.empty((N, len(RANKER_FEATURES)), np.float32)
    inner = np.zeros(1, np.float32)
    FeatureReader(catalogue().promotions, statistics(), Table.of(VECTORS)).read(
        asked, np.arange(N), np.ones(3, np.float32), inner, features_KF
    )
    assert (features_KF[:, AT["away"]] == days).all()

    codes_NQ = statistics().groups_NQ.base
    later_KF = features_KF.copy()
    later_KF[:, AT["away"]] = 0

    def decayed(decay: float, rows: list[int], location: int | None = None) -> float:
        return sum(decay ** (ago + days) for _, row, ago, at in bought if row in rows and location in (None, at))

    def since(rows: list[int]) -> float:
        return min((ago for _, row, ago, _ in bought if row in rows), default=400.0) + days

    for row in range(N):
        later = later_KF[row]
        for name, decay in (("own_slow", DECAYS[0]), ("own_middling", DECAYS[1]), ("own_fast", DECAYS[2])):
            later[AT[name]] = decayed(decay, [row])
        later[AT["own_here"]] = decayed(DECAYS[0], [row], 0)
        for name in ("own_hour", "visits_hour"):
            later[AT[name]] *= DECAYS[0] ** days
        later[AT["own_since"]] = since([row])
        later[AT["visits"]] = decayed(DECAYS[0], list(range(N)))  # every purchase here is a visit of its own
        later[AT["visits_here"]] = decayed(DECAYS[0], list(range(N)), 0)
        for number, group in enumerate(GROUPINGS):
            code = codes_NQ[row, number]
            rows = np.flatnonzero(codes_NQ[:, number] == code).tolist() if code else []
            later[AT[f"{group}_lately"]] = decayed(GROUP_DECAY, rows)
            later[AT[f"{group}_slow"]] = decayed(DECAYS[0], rows)
            later[AT[f"{group}_since"]] = since(rows)
    found, expected = transform(features_KF), transform(later_KF)
    kept = np.arange(found.shape[1]) != AT["away"]  # which it is told besides
    np.testing.assert_allclose(found[:, kept], expected[:, kept], rtol=1e-4, atol=1e-4)


def test_features_of_any_size_give_finite_inputs():
    for features_MF in (
        np.zeros((1, len(RANKER_FEATURES))),
        np.full((1, len(RANKER_FEATURES)), 1e9),
        1e4 * random_features(50),
    ):
        assert np.isfinite(transform(features_MF.astype(np.float32))).all()


# What it answers


def lists_of(features_MF: NDArray[np.float32], taken_M: NDArray[np.bool_], size: int) -> ExampleCandidates:
    """Lists of equal size."""
    count = len(features_MF)
    offsets_Q = np.arange(0, count + 1, size)
    return ExampleCandidates(
        features_MF, taken_M.astype(np.float32), np.arange(count), np.ones(count, np.bool_), offsets_Q
    )


def pattern(lists: int, size: int = 10, seed: int = 0) -> ExampleCandidates:
    """In every list what was bought most often is taken, nine times of ten."""
    features_MF = random_features(lists * size, seed)
    times_QK = features_MF[:, AT["own_times"]].reshape(lists, size)
    random = np.random.default_rng(seed)
    best_Q = np.where(random.random(lists) < 0.9, times_QK.argmax(axis=1), random.integers(0, size, lists))
    taken_QK = np.arange(size) == best_Q[:, None]
    return lists_of(features_MF, taken_QK.ravel(), size)


@pytest.fixture(scope="module")
def fitted() -> Ranker:
    return fit_ranker(pattern(1_500), CONFIG, seed=1, device=CPU)[0]


def test_scores_are_probabilities(fitted: Ranker):
    found_M = probabilities(fitted, pattern(100, seed=1).features_MF)
    assert found_M.dtype == np.float32
    assert ((found_M > 0) & (found_M < 1)).all()
    assert found_M.std() > 0.01


def test_an_obvious_pattern_is_learnt_and_holds_for_lists_not_seen(fitted: Ranker):
    unseen = pattern(200, seed=9)
    scores_QK = probabilities(fitted, unseen.features_MF).reshape(200, 10)
    hits = unseen.taken_M.reshape(200, 10)[np.arange(200), scores_QK.argmax(axis=1)].mean()
    assert hits > 0.6


def test_probabilities_are_as_high_as_things_are_likely(fitted: Ranker):
    unseen = pattern(400, seed=9)
    found_M = probabilities(fitted, unseen.features_MF)
    assert float(fitted.calibration[0]) > 0
    assert calibration_error(found_M, unseen.taken_M) < 0.05
    assert found_M.mean() == pytest.approx(0.1, abs=0.03)


def test_scores_that_lead_astray_where_nothing_was_learnt_are_not_turned_round():
    """What is held out happens to say the contrary; the slope must stay above zero."""
    examples = pattern(400)
    order_Q = np.random.default_rng(1).permutation(400)  # as the fit draws it
    taken_QK = examples.taken_M.reshape(400, 10).copy()
    times_QK = examples.features_MF[:, AT["own_times"]].reshape(400, 10)
    held_out = order_Q[:40]
    taken_QK[held_out] = np.arange(10) == times_QK[held_out].argmin(axis=1)[:, None]
    ranker, _ = fit_ranker(examples._replace(taken_M=taken_QK.ravel()), CONFIG, seed=1, device=CPU)
    assert float(ranker.calibration[0]) > 0


def test_fitting_is_a_function_of_its_arguments(fitted: Ranker):
    torch.manual_seed(99)  # whatever was drawn before
    again, other = (fit_ranker(pattern(1_500), CONFIG, seed=seed, device=CPU)[0] for seed in (1, 2))
    first, second, third = (one.state_dict() for one in (fitted, again, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_what_was_always_the_same_decides_nothing_when_it_differs_one_day():
    examples = pattern(200)
    examples.features_MF[:, AT["away"]] = 7.0
    examples.features_MF[:, AT["promoted"]] = 0.0
    ranker, _ = fit_ranker(examples, CONFIG, seed=1, device=CPU)
    features_MF = pattern(50, seed=9).features_MF
    features_MF[:, [AT["away"], AT["promoted"]]] = 7.0, 0.0
    promoted_MF = features_MF.copy()
    promoted_MF[:, AT["promoted"]] = 1.0
    np.testing.assert_array_equal(probabilities(ranker, promoted_MF), probabilities(ranker, features_MF))
    later_MF = features_MF.copy()
    later_MF[:, AT["away"]] = 6.5
    assert np.abs(probabilities(ranker, later_MF) - probabilities(ranker, features_MF)).max() < 0.5


def test_lists_without_anything_taken_and_lists_of_any_length_are_learnt_from():
    features_MF = random_features(60)
    taken_M = np.zeros(60, np.float32)
    taken_M[[3, 40]] = 1
    examples = ExampleCandidates(
        features_MF, taken_M, np.arange(60), np.ones(60, np.bool_), np.array([0, 10, 10, 30, 31, 60])
    )
    ranker, _ = fit_ranker(examples, msgspec.structs.replace(CONFIG, epochs=1), seed=1, device=CPU)
    assert np.isfinite(probabilities(ranker, features_MF)).all()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_part_at_a_time_is_the_same_as_all_at_once(fitted: Ranker, monkeypatch: pytest.MonkeyPatch, count: int):
    features_MF = random_features(count)
    whole = probabilities(fitted, features_MF)
    monkeypatch.setattr("training.fit_ranker._AT_ONCE", 2)
    np.testing.assert_allclose(probabilities(fitted, features_MF), whole, atol=1e-6)
    assert whole.shape == (count,)


def test_onnx_runtime_computes_what_torch_does(fitted: Ranker, tmp_path: Path):
    export_ranker(tmp_path / "ranker.onnx", fitted)
    session = RankerSession(tmp_path / "ranker.onnx", "cpu")
    for count in (1, 2, 500):
        features_MF = random_features(count, seed=count)
        np.testing.assert_allclose(session.rank(features_MF), probabilities(fitted, features_MF), atol=1e-5)


# How well it is calibrated


def test_the_calibration_error_of_known_cases():
    certain = np.array([0.0, 1.0, 0.0, 1.0], np.float32)
    assert calibration_error(certain, certain) == 0
    assert calibration_error(certain, 1 - certain) == 1
    assert calibration_error(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 0


def test_the_calibration_error_is_the_mean_gap_of_fifteen_bins_of_equal_size():
    random = np.random.default_rng(0)
    found_M, taken_M = random.random(150).astype(np.float32), (random.random(150) < 0.3).astype(np.float32)
    pairs = sorted(zip(found_M.tolist(), taken_M.tolist(), strict=True), key=lambda pair: pair[0])
    gaps = [
        abs(sum(found for found, _ in part) / 10 - sum(taken for _, taken in part) / 10)
        for part in (pairs[start : start + 10] for start in range(0, 150, 10))
    ]
    assert calibration_error(found_M, taken_M) == pytest.approx(sum(gaps) / 15, rel=1e-5)


def test_of_calibrated_probabilities_the_error_is_small_and_of_doubled_odds_it_is_not():
    random = np.random.default_rng(0)
    found_M = random.random(20_000).astype(np.float32)
    taken_M = (random.random(20_000) < found_M).astype(np.float32)
    assert calibration_error(found_M, taken_M) < 0.02
    assert calibration_error(found_M**2, taken_M) > 0.1


# The loss over lists


def slow_listwise(logits: list[float], taken: list[float], owners: list[int], lists: int) -> float:
    total = 0.0
    for number in range(lists):
        mine = [place for place, owner in enumerate(owners) if owner == number]
        mass = sum(math.exp(logits[place]) for place in mine)
        kept = sum(taken[place] for place in mine)
        total -= sum(taken[place] / kept * (logits[place] - math.log(mass)) for place in mine if taken[place])
    return total / lists


def test_the_loss_over_lists_is_the_cross_entropy_of_each():
    random = np.random.default_rng(0)
    for _ in range(20):
        sizes = random.integers(1, 9, 5)
        owners = np.repeat(np.arange(5), sizes)
        logits = random.standard_normal(len(owners)) * 3
        taken = (random.random(len(owners)) < 0.4).astype(np.float64)
        found = listwise_softmax(torch.tensor(logits), torch.tensor(taken), torch.tensor(owners), 5)
        expected = slow_listwise(logits.tolist(), taken.tolist(), owners.tolist(), 5)
        assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_loss_over_lists_survives_large_logits_and_lists_without_anything_taken():
    logits = torch.tensor([1e4, -1e4, 5.0, 1e4], requires_grad=True)
    loss = listwise_softmax(logits, torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1]), 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert torch.isfinite(gradient).all()
    assert not gradient[2:].any(), "a list without anything taken orders nothing"


@pytest.mark.parametrize("taken", ["nothing", "everything", "what has the larger logits"])
def test_lists_that_fit_no_slope_leave_the_probabilities_as_they_are(taken: str) -> None:
    features_MF = random_features(400, seed=3)
    taken_M = np.zeros(400, np.float32)
    if taken == "everything":
        taken_M[:] = 1
    elif taken == "what has the larger logits":
        features_MF[::8, 0] = 1e4
        taken_M[::8] = 1
    found = ExampleCandidates(features_MF, taken_M, np.arange(400), np.ones(400, np.bool_), np.arange(0, 401, 8))
    ranker, _ = fit_ranker(found, msgspec.structs.replace(CONFIG, epochs=1), 1, CPU)
    assert torch.isfinite(ranker.calibration).all()
    assert np.isfinite(probabilities(ranker, features_MF)).all()


# Two rankers


def mixed(regular: int, newcomers: int) -> ExampleCandidates:
    """Lists of regular customers, who take what they bought most, and of newcomers, who take what they bought least."""
    ours, theirs = pattern(regular), pattern(newcomers, seed=5)
    turned_MF = theirs.features_MF.copy()
    turned_MF[:, AT["own_times"]] = 1 / (1 + turned_MF[:, AT["own_times"]])
    theirs = theirs._replace(features_MF=turned_MF, regular_M=np.zeros(len(theirs.rows_M), np.bool_))
    return ExampleCandidates.joined([ours, theirs])


def test_regular_customers_and_newcomers_have_rankers_of_their_own() -> None:
    examples = mixed(900, 700)
    rankers, curves = fit_rankers([examples], CONFIG, 1, CPU)
    assert set(curves) == {"ranker", "newcomers"}
    assert all(len(curve.points) == CONFIG.epochs for curve in curves.values())
    regular_M = examples.regular_M
    found_M = rank(rankers, examples.features_MF, regular_M)
    np.testing.assert_array_equal(found_M[regular_M], probabilities(rankers.regular, examples.features_MF[regular_M]))
    expected_M = probabilities(rankers.newcomers, examples.features_MF[~regular_M])
    np.testing.assert_array_equal(found_M[~regular_M], expected_M)
    for some_M in (regular_M, ~regular_M):
        assert found_M[some_M & (examples.taken_M > 0)].mean() > 2 * found_M[some_M & (examples.taken_M == 0)].mean()


@pytest.mark.parametrize(("regular", "newcomers"), [(900, 400), (300, 900)])
def test_of_few_lists_one_ranker_is_made_for_all(regular: int, newcomers: int) -> None:
    rankers, curves = fit_rankers([mixed(regular, newcomers)], CONFIG, 1, CPU)
    assert rankers.regular is rankers.newcomers
    assert set(curves) == {"ranker"}


def test_the_longest_absence_is_that_of_nearly_all_examples() -> None:
    examples = pattern(1_000)
    features_MF = examples.features_MF.copy()
    features_MF[:, AT["away"]] = np.repeat(np.arange(1_000), 10) / 10
    rankers, _ = fit_rankers([examples._replace(features_MF=features_MF)], CONFIG, 1, CPU)
    assert rankers.longest_absence == pytest.approx(99.8, abs=0.15)


def test_both_sessions_answer_each_for_its_candidates(tmp_path: Path, fitted: Ranker) -> None:
    other = Ranker((4,)).eval()
    for name, ranker in (("ranker", fitted), ("newcomers", other)):
        export_ranker(tmp_path / f"{name}.onnx", ranker)
    sessions = RankerSessions(*(RankerSession(tmp_path / f"{name}.onnx", "cpu") for name in ("ranker", "newcomers")))
    features_MF = random_features(40, seed=7)
    for regular_M in (np.ones(40, np.bool_), np.zeros(40, np.bool_), np.arange(40) % 3 == 0):
        expected_M = np.where(regular_M, probabilities(fitted, features_MF), probabilities(other, features_MF))
        np.testing.assert_allclose(sessions.rank(features_MF, regular_M), expected_M, atol=1e-5)
    assert len(sessions.rank(features_MF[:0], np.zeros(0, np.bool_))) == 0


def test_dropout_leaves_out_a_share_and_keeps_the_mean() -> None:
    torch.manual_seed(3)
    dropout, layer = Dropout(0.2), torch.ones(1_000, 96)
    left = dropout(layer)
    assert left.unique().tolist() == pytest.approx([0, 256 / 205])
    assert float((left == 0).float().mean()) == pytest.approx(51 / 256, abs=0.005)
    assert float(left.mean()) == pytest.approx(1, abs=0.01)
    assert not torch.equal(dropout(layer), left), "another part in every step"
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.2)(layer), left), "the same in every run"
    assert torch.equal(dropout.eval()(layer), layer)
    assert torch.equal(Dropout(0.0)(layer), layer)
