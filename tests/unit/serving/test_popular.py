import numpy as np
import pytest

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving import popular
from serving.popular import PopularRankings
from tests.world import UNTIL, department, tables

ANYWHERE = Place(None)


@pytest.fixture
def catalogue(published: tuple[BundleStore, Manifest]) -> Catalogue:
    store, manifest = published
    return Catalogue.load(store.bundle(manifest.version) / "catalogue")


def these(*rows: int) -> EligibleSet:
    return EligibleSet.of(np.array(rows, np.int64), FOREVER)


def all_of(catalogue: Catalogue) -> EligibleSet:
    return these(*range(len(catalogue.products.ids)))


def test_the_most_bought_come_first_and_equals_by_row(catalogue: Catalogue):
    ranking = PopularRankings(catalogue).of(all_of(catalogue), ANYWHERE)
    pairs = list(zip((-ranking.shares_K).tolist(), ranking.rows_K.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert len(pairs) == len(catalogue.products.ids)


def test_what_was_sold_most_before_the_cut_off_is_on_top(catalogue: Catalogue):
    sold = tables()["events"]
    sold = sold.filter(sold["at"] < UNTIL)["product_id"].value_counts().sort("count", descending=True)
    top = catalogue.products.ids.ids(PopularRankings(catalogue).of(all_of(catalogue), ANYWHERE).rows_K[:5].tolist())
    assert set(top) <= set(sold["product_id"][:15].to_list())
    assert "late" not in top


def test_only_eligible_rows_are_ranked(catalogue: Catalogue):
    ranking = PopularRankings(catalogue).of(these(3, 5, 80), ANYWHERE)
    assert sorted(ranking.rows_K.tolist()) == [3, 5, 80]
    assert len(PopularRankings(catalogue).of(these(), ANYWHERE).rows_K) == 0


def test_each_place_has_its_own_ranking(catalogue: Catalogue):
    eligibility, rankings = Eligibility(catalogue), PopularRankings(catalogue)
    tops = {
        store: catalogue.products.ids.ids(rankings.of(all_of(catalogue), eligibility.place(store)).rows_K[:20].tolist())
        for store in ("north", "south")
    }
    for store, top in tops.items():
        assert all((int(one[1:]) // 4 % 2 == 0) == (store == "north") for one in top)
        assert len({department(one) for one in top}) == 4


def test_a_ranking_is_computed_once_for_a_set_and_place(catalogue: Catalogue):
    rankings = PopularRankings(catalogue)
    first = rankings.of(these(1, 2), ANYWHERE)
    assert rankings.of(these(1, 2), ANYWHERE) is first
    assert rankings.of(these(1, 2), Place((0,))) is not first
    assert rankings.of(these(1, 3), ANYWHERE) is not first


def test_a_part_of_a_set_keeps_the_set_s_order_and_is_not_remembered(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
):
    whole, rankings = all_of(catalogue), PopularRankings(catalogue)
    ranking = rankings.of(whole, ANYWHERE)
    for part in (EligibleSet.derived(whole, ranking.rows_K[::2]), whole.among(ranking.rows_K[1::2])):
        found = rankings.of(part, ANYWHERE)
        assert found.rows_K.tolist() == ranking.rows_K[1::2].tolist()
        assert found.shares_K.tolist() == ranking.shares_K[1::2].tolist()
    monkeypatch.setattr(popular, "LONGEST", 4)
    rankings, last = PopularRankings(catalogue), ranking.rows_K[-5:]
    assert rankings.of(whole.among(last), ANYWHERE).rows_K.tolist() == []
    assert rankings.of(whole.among(last), ANYWHERE, 4).rows_K.tolist() == last[:4].tolist()
    assert len(rankings._remembered) == 1  # pyright: ignore[reportPrivateUsage]


def test_only_so_many_are_remembered_the_latest_used(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(popular, "REMEMBERED_BYTES", 1_500)
    rankings = PopularRankings(catalogue)
    first, second = rankings.of(these(1), ANYWHERE), rankings.of(these(2), ANYWHERE)
    assert rankings.of(these(1), ANYWHERE) is first
    rankings.of(these(3), ANYWHERE)
    assert rankings.of(these(1), ANYWHERE) is first
    assert rankings.of(these(2), ANYWHERE) is not second


def test_a_ranking_is_as_long_as_a_request_can_reach(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch):
    assert popular.LONGEST >= 100 + 1_000
    monkeypatch.setattr(popular, "LONGEST", 4)
    whole = PopularRankings(catalogue)
    assert len(whole.of(all_of(catalogue), ANYWHERE).rows_K) == 4
