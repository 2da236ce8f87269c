"""The ranker of offers over HTTP: it reads in service what it read in training, redemptions by everybody included."""

from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Table
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility
from embeddings.customer.tower_input import Situation, encode
from embeddings.ranking.features import FeatureReader
from embeddings.ranking.offer_features import OFFER_FEATURES, OfferFeatureReader
from embeddings.ranking.profile import profile_of
from embeddings.ranking.sources import RankingQuery
from embeddings.release.bundle import Manifest, ModelBundle, open_histories
from embeddings.release.store import BundleStore
from tests.integration.server import Server, event, eventually, ids, release
from tests.world import UNTIL, store

SOON, LATER = UNTIL + timedelta(hours=1), UNTIL + timedelta(hours=2)
NOBODY = np.zeros(0, np.int64)


def redemption(customer: str, offer: str) -> dict[str, Any]:
    return event(customer, None, SOON, "redemption", offer_id=offer, channel="store")


def counted(server: Server, customer: str) -> dict[str, float]:
    """How often everybody has redeemed each offer, as the ranker reads it."""
    answer = server.recommend(customer, at=LATER, kinds=["offer"], explain=True)
    return {item["id"]: item["explanation"]["features"]["redeemed_by_others"] for item in answer["items"]}


def test_the_ranker_of_offers_reads_in_service_what_is_worked_out_offline_to_the_bit(
    recorder: Server, published: tuple[BundleStore, Manifest]
):
    bundles, manifest = published
    bundle = ModelBundle.open(bundles.bundle(manifest.version), "cpu", 2**24)
    _, histories = open_histories(bundles.histories(manifest.version))
    catalogue, statistics, vectors_ND = bundle.catalogue, bundle.statistics, bundle.vectors_ND
    vectors = Table.of(vectors_ND)
    eligibility, features = Eligibility(catalogue), FeatureReader(catalogue.promotions, statistics, vectors)
    reader = OfferFeatureReader(catalogue, statistics)
    recorder.report(*(redemption("c100", offer) for offer in ("everyone", "everyone", "at-north", "expired")))
    redeemed_O = np.zeros(len(catalogue.offers.ids), np.float32)
    for offer, times in (("everyone", 2), ("at-north", 1), ("expired", 1)):
        row = catalogue.offers.ids.row(offer)
        assert row is not None
        redeemed_O[row] = times

    def worked_out(customer: str, channel: str, location: str) -> dict[str, NDArray[np.float32]]:
        place, history, moment = eligibility.place(location), histories.of(customer), int(LATER.timestamp())
        allowed = eligibility.offers(Context(channel, location), place, moment, history.audiences, history.redeemed_R)
        situation = Situation(eligibility.channel(channel), -1, moment, ahead=channel == "email").at(
            place, history.purchases
        )
        tower_input = encode([history], [situation], bundle.manifest.history_length, statistics.longest_absence)
        customer_D = bundle.customer_encoder.encode(tower_input, vectors_ND)[0]
        profile, near = profile_of(history.purchases, statistics), statistics.bought_together
        question = RankingQuery.of(profile, history, near, situation, allowed, NOBODY, NOBODY)
        covered_K, features_KF = reader.covered(question, features, vectors, customer_D)
        assert bundle.rankers is not None
        probabilities_K = bundle.rankers.regular.rank(features_KF) if len(covered_K) else np.zeros(0, np.float32)
        features_OF = reader.read(question, allowed.rows_N, covered_K, probabilities_K, redeemed_O)
        return dict(zip(catalogue.offers.ids.ids(allowed.rows_N.tolist()), features_OF, strict=True))

    for number in (0, 1, 2, 10, 17, 54):
        customer = f"c{number:03d}"
        for channel in ("store", "email"):
            expected = worked_out(customer, channel, store(number))
            answer = recorder.recommend(customer, channel, store(number), at=LATER, kinds=["offer"], explain=True)
            assert set(ids(answer)) == set(expected)
            for item in answer["items"]:
                read = item["explanation"]["features"]
                assert tuple(read) == OFFER_FEATURES
                assert np.array(list(read.values()), np.float32).tobytes() == expected[item["id"]].tobytes(), item["id"]


def test_what_a_customer_redeemed_is_redeemed_for_them_alone_in_the_very_next_answer(own: Server):
    def redeemed(customer: str) -> dict[str, float]:
        items = own.recommend(customer, "email", at=LATER, kinds=["offer"], explain=True)["items"]
        return {item["id"]: item["explanation"]["features"]["redeemed"] for item in items}

    untouched = {"everyone": 0, "at-north": 0, "by-email": 0}
    assert redeemed("c005") == redeemed("c006") == untouched
    own.report(redemption("c005", "everyone"))  # one of the two that it allows
    assert (redeemed("c005"), redeemed("c006")) == (untouched | {"everyone": 1}, untouched)
    own.report(redemption("c005", "everyone"), redemption("c005", "at-north"))  # the only one that this allows
    assert (redeemed("c005"), redeemed("c006")) == ({"by-email": 0}, untouched)


def test_a_dismissed_offer_comes_last_in_the_very_next_answer(own: Server):
    def offers() -> list[str]:
        few = [f"p{number:03d}" for number in range(10)]
        return ids(own.recommend("c008", "email", at=LATER, kinds=["product", "offer"], items=few, limit=100))

    first = next(one for one in offers() if one in {"everyone", "at-north", "by-email"})
    own.report(event("c008", None, SOON, "dismissal", offer_id=first, channel="email"))
    assert offers()[-1] == first


def test_counts_outlive_a_release_and_a_start(own: Server):
    once = redemption("c001", "everyone")
    own.report(once, redemption("c005", "everyone"), redemption("c006", "vips"))
    assert counted(own, "c010") == {"everyone": 2, "vips": 1, "at-north": 0}
    release(own.store, "second", 0.125)
    eventually(lambda: own.client.get("/readyz").json()["model_version"] == "second", "the second release")
    assert counted(own, "c010") == {"everyone": 2, "vips": 1, "at-north": 0}
    own.stop()
    own.start()
    assert counted(own, "c010") == {"everyone": 2, "vips": 1, "at-north": 0}
    assert own.report(once)["duplicates"] == 1
    own.report(redemption("c001", "everyone"))
    assert counted(own, "c010") == {"everyone": 3, "vips": 1, "at-north": 0}
