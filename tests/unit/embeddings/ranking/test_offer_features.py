"""What is read of offers, and what their ranker learns; on a catalogue of ten products and three offers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embeddings.arrays import Ragged, Table
from embeddings.catalogue.columns import Catalogue, Offers
from embeddings.customer.history import REDEMPTION, Histories, History
from embeddings.ranking.acceptance import Acceptance, situation_codes
from embeddings.ranking.features import FeatureReader
from embeddings.ranking.offer_features import OFFER_FEATURES, OfferFeatureReader
from embeddings.ranking.profile import DECAYS, NEVER_DAYS
from embeddings.ranking.redemption import VISIT_FEATURES
from embeddings.ranking.sources import RankingQuery
from embeddings.ranking.statistics import PRODUCT_STATISTICS
from embeddings.release.encoders import OfferRankerSession
from embeddings.vocabulary import Vocabulary
from tests.unit.embeddings.small import DAY, NOW, RHYTHM_CODES, VECTORS, D, ask, catalogue, events_of, past, statistics
from training.export import export_offer_ranker
from training.offer_ranker import OfferRanker, fit_offers
from training.statistics import redeemed_offers, times_redeemed
from training.visits import Visit, VisitExample

COVERS = [[1, 2, 3, 4], [2], [5, 6, 7, 8, 9], []]
O = len(COVERS)  # noqa: E741 - the letter of the shapes
BEGAN, ENDS = 10, 20
REDEEMED = np.array([3, 0, 7, 1], np.float32)


def with_offers() -> Catalogue:
    """The small catalogue with offers that began ten days ago and end in twenty."""
    everywhere = Ragged.of([[]] * O)
    return catalogue()._replace(
        offers=Offers(
            Vocabulary.of([f"o{row}" for row in range(O)]),
            np.zeros(O, np.uint8),
            np.full(O, NOW - BEGAN * DAY),
            np.full(O, NOW + ENDS * DAY),
            np.full(O, -1, np.int32),
            np.ones(O, np.int32),
            np.zeros(O, np.bool_),
            Ragged.of(COVERS),
            everywhere,
            everywhere,
        )
    )


HISTORY = past(
    ("purchase", 2, 40.0, 0),
    ("purchase", 2, 5.0, 0),
    ("purchase", 3, 5.0, 1),
    ("purchase", 7, 3.0, 0),
    ("purchase", 0, 3.0, 0),  # no offer covers it, no group is known of it
)


NOTHING = Acceptance.none()


def read(query: RankingQuery, rows: list[int], acceptance: Acceptance = NOTHING) -> list[dict[str, float]]:
    """The features of some offers by name; each product's probability is a hundredth of its row."""
    reader = OfferFeatureReader(with_offers(), statistics()._replace(acceptance=acceptance))
    features = FeatureReader(catalogue().promotions, statistics(), Table.of(VECTORS))
    covered_K, _ = reader.covered(query, features, Table.of(VECTORS), np.ones(D, np.float32))
    probabilities_K = (covered_K / 100).astype(np.float32)
    features_OF = reader.read(query, np.array(rows), covered_K, probabilities_K, REDEEMED)
    assert features_OF.dtype == np.float32
    return [dict(zip(OFFER_FEATURES, one, strict=True)) for one in features_OF.tolist()]


def mean_bought(group: int, row: int, bought: dict[int, list[float]]) -> float:
    """The mean over an offer's products of the slowly decayed purchases of each one's group."""
    codes = [int(RHYTHM_CODES[product, group]) for product in COVERS[row]]
    return sum(decayed(group, code, bought) for code in codes) / len(codes)


def decayed(group: int, code: int, bought: dict[int, list[float]]) -> float:
    return sum(
        DECAYS[0] ** days
        for product, ages in bought.items()
        for days in ages
        if code and int(RHYTHM_CODES[product, group]) == code
    )


def test_every_feature_is_what_its_name_says():
    bought = {2: [40.0, 5.0], 3: [5.0], 7: [3.0], 0: [3.0]}
    query, figures_NP = ask(HISTORY, location=0), statistics().products_NP.base
    alike = dict(zip(*(one.tolist() for one in query.profile.also_bought), strict=True))
    for row, found in enumerate(read(query, [0, 1, 2])):
        mine = [product for product in COVERS[row] if product in bought]
        root = len(COVERS[row]) ** 0.5
        slow, middling, fast = (sum(decay**age for one in mine for age in bought[one]) for decay in DECAYS)
        here = sum(DECAYS[0] ** age for one in mine for age in bought[one] if one != 3)
        likely, share = sum(mine), figures_NP[COVERS[row], PRODUCT_STATISTICS.index("share")].sum() * 1e5
        expected = {
            "products": len(mine),
            "slow": slow,
            "middling": middling,
            "fast": fast,
            "here": here,
            "since": min(min(bought[one]) for one in mine),
            "likely": likely,
            "likeliest": max(mine),
            "size": len(COVERS[row]),
            "likely_per_root": likely / root,
            "slow_per_root": slow / root,
            "here_per_root": here / root,
            "begun": BEGAN,
            "left": ENDS,
            "redeemed": 0,
            "redeemed_by_others": REDEEMED[row],
            "share": share,
            "share_per_root": share / root,
            "types": sum(decayed(0, code, bought) for code in {int(RHYTHM_CODES[one, 0]) for one in COVERS[row]}),
            "type_mean": mean_bought(0, row, bought),
            "maker_mean": mean_bought(2, row, bought),
            "also_bought_per_root": sum(alike.get(one, 0.0) for one in COVERS[row]) / root,
            "buyers": figures_NP[COVERS[row], PRODUCT_STATISTICS.index("buyers")].sum(),
        }
        assert tuple({**expected, **NOT_SHOWN}) == OFFER_FEATURES
        assert found == pytest.approx({**expected, **NOT_SHOWN}, rel=1e-4), row


NOT_SHOWN = dict.fromkeys(
    ("accepted", "accepted_by_like", "accepted_now", "accepted_by_own", "shown", "shown_since"), 0
)


def test_what_was_shown_counts_where_it_taught_something():
    events_E = events_of(
        ("impression", -1, 31.0, 0),  # too long ago
        ("impression", -1, 9.0, 0),
        ("redemption", -1, 8.0, 0),
        ("impression", -1, 4.0, 0),
        ("dismissal", -1, 2.0, 0),
        ("dismissal", -1, 0.5, 0),  # after all exposures were counted
    )
    events_E["offer"] = [1, 1, 1, 1, 0, 2]
    query = ask(History(events_E, np.array([1], np.int32), ()), location=0)
    situation = query.situation
    at = np.array([situation.moment])
    codes = situation_codes(np.array([situation.channel]), at, np.array([situation.attributes], np.int64))[0].tolist()
    sizes = [2, *(code + 1 for code in codes)]
    ends = np.cumsum([0, *sizes])
    evidence_OV = np.zeros((O, ends[-1]), np.float32)
    evidence_OV[1, 1] = 0.5  # such customers
    evidence_OV[1, ends[2] - 1], evidence_OV[1, ends[-1] - 1] = 0.3, -1.0  # on this channel, at this time of the day
    acceptance = Acceptance(
        np.array([0, 1, 2, 3], np.float32),
        np.zeros(1, np.float32),
        evidence_OV,
        ends,
        np.array([1]),
        np.array([NOW - DAY]),
    )
    first, second, third = read(query, [0, 1, 2], acceptance)
    chance = (1 + 2 / (1 + np.exp(-1.5))) / (2 + 2)  # one of two was accepted, beside twice what such customers do
    assert {name: second[name] for name in NOT_SHOWN} == pytest.approx(
        {
            "accepted": 100 * np.exp(1),
            "accepted_by_like": 100 * np.exp(1.5),
            "accepted_now": 100 * np.exp(0.3),
            "accepted_by_own": 100 * chance / (1 - chance),
            "shown": 2,
            "shown_since": 4,
        },
        rel=1e-4,
    )
    assert (first["shown"], first["shown_since"], first["accepted"]) == pytest.approx((1, 2, 100))
    assert (third["shown"], third["shown_since"]) == pytest.approx((0, NEVER_DAYS))
    assert third["accepted_by_own"] == pytest.approx(third["accepted"])


def test_an_offer_that_covers_nothing_and_a_customer_who_bought_nothing_have_features_too():
    (found,) = read(ask(HISTORY), [3])
    assert (found["products"], found["since"], found["types"], found["size"]) == (0, NEVER_DAYS, 0, 1)
    for found in read(ask(past(("view", 2, 1.0, 0))), [0, 3]):
        assert (found["slow"], found["since"], found["also_bought_per_root"]) == (0, NEVER_DAYS, 0)
        assert np.isfinite(list(found.values())).all()


def test_only_what_this_customer_redeemed_is_redeemed():
    events_E = events_of(("purchase", 2, 5.0, 0), ("redemption", -1, 4.0, 0))
    events_E["offer"] = -1
    events_E["offer"][1] = 2
    found = read(ask(History(events_E, np.zeros(0, np.int32), ())), [0, 2])
    assert [one["redeemed"] for one in found] == [0, 1]
    assert [one["redeemed_by_others"] for one in found] == REDEEMED[[0, 2]].tolist()


def test_redemptions_are_counted_by_offer_oldest_first():
    events_E = events_of(("redemption", -1, 1.0, 0), ("redemption", -1, 3.0, 0), ("purchase", 2, 2.0, 0))
    events_E = np.concatenate([events_E, events_of(("redemption", -1, 2.0, 0), ("redemption", -1, 0.5, 0))])
    events_E["offer"] = [2, -1, 1, 0, 2]  # three days ago; then a purchase; one day ago; two days ago; half a day ago
    histories = Histories(
        Vocabulary.of(["a", "b"]),
        events_E,
        np.array([0, 3, 5]),
        np.zeros((2, 0), np.int32),
        Ragged.of([[], []]),
        (),
        (),
    )
    redeemed_E = redeemed_offers(histories)
    assert (redeemed_E["type"] == REDEMPTION).all()
    assert redeemed_E["offer"].tolist() == [2, 0, 1, 2]
    assert times_redeemed(redeemed_E[:2], with_offers()).tolist() == [1, 0, 1, 0]
    assert times_redeemed(redeemed_E, with_offers()).tolist() == [1, 1, 2, 0]


# What the ranker learns

VISIT = Visit(0, NOW, -1, 0, (), frozenset(), 1.0)
AT = {name: place for place, name in enumerate(OFFER_FEATURES)}


def random_features(count: int, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    features_OF = random.exponential(10, (count, AT["accepted"])).astype(np.float32)
    features_OF[random.random(features_OF.shape) < 0.3] = 0
    unknown_OF = np.zeros((count, len(OFFER_FEATURES) - AT["accepted"]), np.float32)
    return np.concatenate([features_OF, unknown_OF], axis=1)  # as where nobody knows what was shown


def days(count: int) -> list[VisitExample]:
    """Lists of twelve, of which the one is redeemed whose ``left`` is nearest to ten days."""
    found: list[VisitExample] = []
    for seed in range(count):
        features_OF = random_features(12, seed)
        taken_O = np.zeros(12, np.float32)
        taken_O[np.abs(np.log1p(features_OF[:, AT["left"]]) - np.log(11)).argmin()] = 1
        found.append(VisitExample(VISIT, features_OF, taken_O, np.zeros(len(VISIT_FEATURES), np.float32)))
    return found


def firsts(ranker: OfferRanker, some: list[VisitExample]) -> float:
    """How often what was redeemed comes first."""
    with torch.inference_mode():
        return float(np.mean([day.taken_O[ranker(torch.from_numpy(day.features_OF)).argmax()] for day in some]))


def test_it_learns_a_curve_that_no_line_can_follow():
    ranker = fit_offers(days(300))
    assert firsts(ranker, days(400)[300:]) > 0.5


def test_the_same_days_give_the_same_ranker():
    first, second = (fit_offers(days(60)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_with_too_few_redemptions_purchases_over_the_root_of_the_size_decide():
    features_OF = random_features(30)
    with torch.inference_mode():
        found_O = fit_offers(days(49))(torch.from_numpy(features_OF)).numpy()
    np.testing.assert_allclose(found_O, np.log1p(features_OF[:, AT["slow_per_root"]]), rtol=1e-6)


def test_onnx_runtime_computes_what_torch_does(tmp_path: Path):
    ranker = fit_offers(days(60))
    export_offer_ranker(tmp_path / "offers.onnx", ranker)
    session = OfferRankerSession(tmp_path / "offers.onnx", "cpu")
    for count in (1, 2, 300):
        features_OF = random_features(count, seed=count)
        with torch.inference_mode():
            expected_O = ranker(torch.from_numpy(features_OF)).numpy()
        np.testing.assert_allclose(session.rank(features_OF), expected_O, atol=1e-4)
