"""How likely any eligible offer is redeemed: what is read of a visit, and what is learnt of many."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embeddings.catalogue.columns import Offers
from embeddings.customer.history import History
from embeddings.ranking.offer_features import OFFER_FEATURES
from embeddings.ranking.profile import NEVER_DAYS
from embeddings.ranking.redemption import VISIT_FEATURES, VisitFeatureReader, sum_of_odds
from embeddings.release.encoders import RedemptionSession
from tests.unit.embeddings.small import DAY, NOW, ask, events_of
from training.export import export_redemption
from training.offer_ranker import OfferRanker
from training.redemption import Redemption, fit_redemption, measure_offers
from training.visits import Visit, VisitExample

RUNS = cast(
    "Offers",
    SimpleNamespace(
        audiences_O=np.array([-1, -1, 0]),
        starts_O=NOW - np.array([20, 30, 60]) * DAY,
        ends_O=np.array([NOW + DAY, NOW - 10 * DAY, NOW - 40 * DAY]),
    ),
)
HALF_HOUR = 1 / 48


def history(*events: tuple[str, int, float, int], audiences: tuple[int, ...] = ()) -> History:
    """A past of (type, offer, days ago, location), of product 2 where no offer is named."""
    events_E = events_of(*events)
    events_E["offer"] = events_E["product"]
    events_E["product"] = np.where(events_E["offer"] < 0, 2, -1)
    return History(events_E, np.zeros(0, np.int32), audiences)


def read(past: History, odds: float = 3.0) -> dict[str, float]:
    features_OF = np.arange(1, 2 * len(OFFER_FEATURES) + 1, dtype=np.float32).reshape(2, -1)
    features_OF[0, OFFER_FEATURES.index("products")] = 0
    features_F = VisitFeatureReader(RUNS).read(ask(past), features_OF, odds)
    assert features_F.dtype == np.float32
    return dict(zip(VISIT_FEATURES, features_F.tolist(), strict=True))


def test_visits_count_while_an_offer_ran_for_the_customer_and_once_for_all_done_in_them():
    some = (
        ("purchase", -1, 50.0, 0),  # only an offer for audience 0 ran
        ("view", -1, 5.0, 0),
        ("purchase", -1, 5.0 - HALF_HOUR / 2, 0),
        ("redemption", 1, 5.0 - HALF_HOUR, 0),
        ("purchase", -1, 3.0, 0),
        ("impression", -1, 1.0, 0),  # nothing done
    )
    found = read(history(*some))
    assert found["visits"] == pytest.approx(0.99**5 + 0.99**3, rel=1e-6)
    assert found["redeeming"] == pytest.approx(0.99 ** (5 - HALF_HOUR), rel=1e-6)
    assert found["since"] == pytest.approx(5 - HALF_HOUR)
    assert found["rate"] == pytest.approx(100 * (found["redeeming"] + 0.2) / (found["visits"] + 10), rel=1e-6)
    assert found["away"] == pytest.approx(3)
    theirs = read(history(*some, audiences=(0,)))
    assert theirs["visits"] == pytest.approx(0.99**50 + 0.99**5 + 0.99**3, rel=1e-6)


def test_the_offers_of_a_visit_are_summed_up():
    found = read(history(("purchase", -1, 3.0, 0)))
    column = {
        name: place + 1.0 for place, name in enumerate(OFFER_FEATURES)
    }  # of the first; the second is further by F
    further = float(len(OFFER_FEATURES))
    assert (found["known"], found["odds"], found["offers"], found["covering"]) == (1, 3, 2, 1)
    assert found["likeliest"] == column["likeliest"] + further
    assert found["slow_per_root"] == column["slow_per_root"] + further
    assert (found["begun"], found["left"]) == (column["begun"], column["left"])
    a_day = [(column["redeemed_by_others"] + more) / (column["begun"] + more + 1) for more in (0, further)]
    assert found["redeemed_a_day"] == pytest.approx(sum(a_day))
    assert (found["redeeming"], found["since"]) == (0, NEVER_DAYS)


def test_the_sum_of_odds_is_finite_whatever_the_log_odds():
    assert sum_of_odds(np.array([0, np.log(2)], np.float32)) == pytest.approx(3)
    assert sum_of_odds(np.array([-200], np.float32)) == pytest.approx(0)
    assert np.isfinite(np.float32(sum_of_odds(np.array([500, 400], np.float32))))


def visits(count: int, seed: int = 0) -> list[VisitExample]:
    """Visits with two offers, the likelier redeemed in the more the higher ``rate`` is; none without one."""
    random = np.random.default_rng(seed)
    found: list[VisitExample] = []
    for number in range(count):
        features_F = random.exponential(5, len(VISIT_FEATURES)).astype(np.float32)
        features_F[VISIT_FEATURES.index("known")] = 1
        likely = 1 / (1 + np.exp(4 - np.log1p(features_F[VISIT_FEATURES.index("rate")])))
        taken_O = np.array([random.random() < likely, 0], np.float32)
        features_OF = np.zeros((2, len(OFFER_FEATURES)), np.float32)
        features_OF[0, OFFER_FEATURES.index("slow_per_root")] = 1
        weight = 1.0 if taken_O.any() or number % 2 else 2.0
        found.append(
            VisitExample(Visit(number % 40, NOW, -1, 0, (), frozenset(), weight), features_OF, taken_O, features_F)
        )
    return found


def probabilities(model: Redemption, features_VF: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return model(torch.from_numpy(features_VF)).numpy()


NOBODY = np.zeros((1, len(VISIT_FEATURES)), np.float32)


def test_it_learns_what_makes_visits_redeem_and_how_much():
    offers = OfferRanker().eval()
    model, later = fit_redemption(visits(4_000), offers), visits(4_000, seed=1)
    metrics = measure_offers(later, offers, model)
    assert metrics["visit_calibration_error"] < 0.02
    assert metrics["calibration_error"] < 0.02
    features_VF = np.stack([one.features_F for one in later])
    found_V = probabilities(model, features_VF)
    order = np.argsort(features_VF[:, VISIT_FEATURES.index("rate")])
    assert found_V[order[-1000:]].mean() > 1.5 * found_V[order[:1000]].mean()


def test_the_same_visits_give_the_same_model():
    first, second = (fit_redemption(visits(600), OfferRanker().eval()).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("far", [1.0, 1e3, 1e30])
@pytest.mark.parametrize("mixed", [0, 3])
def test_visits_that_a_feature_tells_apart_for_certain_are_learnt_from_too(far: float, mixed: int):
    rate, some = VISIT_FEATURES.index("rate"), visits(400)
    for number, one in enumerate(some):
        redeemed = number % 3 == 0
        one.features_F[rate] = far if redeemed else 0
        one.taken_O[0] = redeemed if number >= mixed else not redeemed
    model = fit_redemption(some, OfferRanker().eval())
    found_V = probabilities(model, np.stack([one.features_F for one in some]))
    assert np.isfinite(found_V).all()
    assert found_V[::3].mean() > 0.8
    assert found_V[1::3].mean() < 0.2


@pytest.mark.parametrize("count", [0, 1, 30])
def test_with_few_redemptions_everybody_has_a_base_rate_that_is_no_certainty(count: int):
    some = visits(count)
    model = fit_redemption(some, OfferRanker().eval())
    redeemed = sum(float(one.taken_O.any()) for one in some)
    expected = (redeemed + 1) / (sum(one.visit.weight for one in some) + 100)
    features_VF = np.concatenate([NOBODY, *(one.features_F[None] for one in some)])
    assert probabilities(model, features_VF).tolist() == pytest.approx([expected] * (count + 1))


def test_metrics_of_drawn_visits_count_each_as_often_as_it_stands_for_others():
    offers, some = OfferRanker().eval(), visits(300)
    model = fit_redemption(some[:20], offers)  # the base rate for all
    metrics = measure_offers(some, offers, model)
    total = sum(one.visit.weight for one in some)
    share = sum(float(one.taken_O.any()) for one in some) / total
    assert (metrics["visits"], metrics["redeeming"]) == (round(total), round(share, 5))
    assert measure_offers([], offers, model) == {}


def test_onnx_runtime_computes_what_torch_does(tmp_path: Path):
    model = fit_redemption(visits(1_000), OfferRanker().eval())
    export_redemption(tmp_path / "redemption.onnx", model)
    session = RedemptionSession(tmp_path / "redemption.onnx", "cpu")
    features_VF = np.concatenate([NOBODY, *(one.features_F[None] for one in visits(20, seed=2))])
    np.testing.assert_allclose(session.likely(features_VF), probabilities(model, features_VF), atol=1e-5)
    assert session.base_rate == pytest.approx(float(probabilities(model, NOBODY)[0]))
