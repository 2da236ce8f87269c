import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Eligibility
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.ranking.observed import Observed
from embeddings.ranking.statistics import Statistics
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving import popular
from serving.popular import PopularRankings
from tests.world import UNTIL, department, tables

ANYWHERE: tuple[int, ...] = ()


@pytest.fixture
def catalogue(published: tuple[BundleStore, Manifest]) -> Catalogue:
    store, manifest = published
    return Catalogue.load(store.bundle(manifest.version) / "catalogue")


@pytest.fixture(scope="module")
def observed(published: tuple[BundleStore, Manifest]) -> Observed:
    store, manifest = published
    return Statistics.load(store.bundle(manifest.version) / "statistics").observed


def these(*rows: int) -> EligibleSet:
    return EligibleSet.of(np.array(rows, np.int64), FOREVER)


def all_of(catalogue: Catalogue) -> EligibleSet:
    return these(*range(len(catalogue.products.ids)))


def test_the_most_bought_come_first_and_equals_by_row(catalogue: Catalogue, observed: Observed):
    ranking = PopularRankings().of(observed, all_of(catalogue), ANYWHERE)
    pairs = list(zip((-ranking.shares_K).tolist(), ranking.rows_K.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert len(pairs) == len(catalogue.products.ids)


def test_what_was_sold_most_before_the_cut_off_is_on_top(catalogue: Catalogue, observed: Observed):
    sold = tables()["events"]
    sold = sold.filter(sold["at"] < UNTIL)["product_id"].value_counts().sort("count", descending=True)
    top = catalogue.products.ids.ids(PopularRankings().of(observed, all_of(catalogue), ANYWHERE).rows_K[:5].tolist())
    assert set(top) <= set(sold["product_id"][:15].to_list())
    assert "late" not in top


def test_only_eligible_rows_are_ranked(observed: Observed):
    ranking = PopularRankings().of(observed, these(3, 5, 80), ANYWHERE)
    assert sorted(ranking.rows_K.tolist()) == [3, 5, 80]
    assert len(PopularRankings().of(observed, these(), ANYWHERE).rows_K) == 0


def test_each_place_has_its_own_ranking(catalogue: Catalogue, observed: Observed):
    eligibility, rankings = Eligibility(catalogue), PopularRankings()
    tops: dict[str, list[str]] = {}
    for store in ("north", "south"):
        ranking = rankings.of(observed, all_of(catalogue), observed.lists_of(eligibility.place(store).rows))
        tops[store] = catalogue.products.ids.ids(ranking.rows_K[:20].tolist())
    for store, top in tops.items():
        assert all((int(one[1:]) // 4 % 2 == 0) == (store == "north") for one in top)
        assert len({department(one) for one in top}) == 4


def test_a_ranking_is_computed_once_for_a_set_and_place(observed: Observed):
    rankings = PopularRankings()
    first = rankings.of(observed, these(1, 2), ANYWHERE)
    assert rankings.of(observed, these(1, 2), ANYWHERE) is first
    assert rankings.of(observed, these(1, 2), (0,)) is not first
    assert rankings.of(observed, these(1, 3), ANYWHERE) is not first


def test_a_part_of_a_set_keeps_the_set_s_order_and_is_not_remembered(
    catalogue: Catalogue, observed: Observed, monkeypatch: pytest.MonkeyPatch
):
    whole, rankings = all_of(catalogue), PopularRankings()
    ranking = rankings.of(observed, whole, ANYWHERE)
    for part in (EligibleSet.derived(whole, ranking.rows_K[::2]), whole.among(ranking.rows_K[1::2])):
        found = rankings.of(observed, part, ANYWHERE)
        assert found.rows_K.tolist() == ranking.rows_K[1::2].tolist()
        assert found.shares_K.tolist() == ranking.shares_K[1::2].tolist()
    monkeypatch.setattr(popular, "LONGEST", 4)
    rankings, last = PopularRankings(), ranking.rows_K[-5:]
    assert rankings.of(observed, whole.among(last), ANYWHERE).rows_K.tolist() == []
    assert rankings.of(observed, whole.among(last), ANYWHERE, 4).rows_K.tolist() == last[:4].tolist()
    assert len(rankings._remembered) == 1  # pyright: ignore[reportPrivateUsage]


@given(
    st.sets(st.integers(0, 121)),
    st.sets(st.integers(0, 121)),
    st.sets(st.integers(0, 125)),
    st.sampled_from([3, 20, 200]),
)
def test_a_set_that_changed_is_ranked_as_if_it_were_another(
    observed: Observed, rows: set[int], removed: set[int], added: set[int], longest: int
):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(popular, "LONGEST", longest)
        whole = these(*sorted(rows))
        changed = EligibleSet.derived(whole, np.array([*removed], np.int64), np.array([*added], np.int64), own=False)
        alone = PopularRankings().of(observed, these(*sorted((rows - removed) | added)), (0,))
        found = PopularRankings().of(observed, changed, (0,))
        assert found.rows_K.tolist() == alone.rows_K[: len(found.rows_K)].tolist()
        assert found.shares_K.tolist() == alone.shares_K[: len(found.shares_K)].tolist()
        assert len(found.rows_K) >= min(longest // 2, len(rows - removed))
        assert PopularRankings().of(observed, changed, (0,), longest).rows_K.tolist() == alone.rows_K.tolist()


def test_only_so_many_are_remembered_the_latest_used(observed: Observed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(popular, "REMEMBERED_BYTES", 1_500)
    rankings = PopularRankings()
    first, second = rankings.of(observed, these(1), ANYWHERE), rankings.of(observed, these(2), ANYWHERE)
    assert rankings.of(observed, these(1), ANYWHERE) is first
    rankings.of(observed, these(3), ANYWHERE)
    assert rankings.of(observed, these(1), ANYWHERE) is first
    assert rankings.of(observed, these(2), ANYWHERE) is not second


def test_a_ranking_is_as_long_as_a_request_can_reach(
    catalogue: Catalogue, observed: Observed, monkeypatch: pytest.MonkeyPatch
):
    assert popular.LONGEST >= 100 + 1_000
    monkeypatch.setattr(popular, "LONGEST", 4)
    whole = PopularRankings()
    assert len(whole.of(observed, all_of(catalogue), ANYWHERE).rows_K) == 4
