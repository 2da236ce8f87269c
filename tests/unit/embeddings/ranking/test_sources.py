"""Where candidates come from: one contract for every source, and what each of them is for."""

from typing import get_args

import numpy as np
import pytest

from embeddings.customer.history import History
from embeddings.ranking import sources as proposing
from embeddings.ranking.profile import OWN
from embeddings.ranking.sources import (
    ALL,
    FEW,
    SOURCES,
    BuyAgain,
    DueNow,
    RankingQuery,
    Source,
    SourceName,
    propose,
    times_more,
)
from tests.unit.embeddings.small import ALIKE, DAY, NOW, TOGETHER, N, ask, past

HOUR = 1 / 24
SILENT_WITHOUT_A_PAST: tuple[SourceName, ...] = ("bought_together", "due_now", "buy_again", "also_bought")


def draw(seed: int) -> RankingQuery:
    """Some customer, somewhere, asking for a part of the catalogue."""
    random = np.random.default_rng(seed)
    kinds = ["purchase", "purchase", "purchase", "view", "add_to_cart", "dismissal"]
    history = past(
        *(
            (
                str(random.choice(kinds)),
                int(random.integers(N)),
                float(random.choice([0.01, 0.1, 1, 7, 14, 90])),
                int(random.integers(-1, 3)),
            )
            for _ in range(int(random.integers(1, 20)))
        )
    )
    rows = sorted(random.choice(N, int(random.integers(1, N + 1)), replace=False).tolist())
    retrieved = random.permutation(rows)[:4].tolist()
    pads = [-1] * (4 - len(retrieved))
    popular = random.permutation(rows).tolist()
    location = int(random.integers(-1, 3))
    return ask(history, location, NOW, rows, [*retrieved, *pads], popular, novel=bool(random.random() < 0.3))


def same_but(query: RankingQuery, history: History) -> RankingQuery:
    """The same question of somebody else."""
    fresh = ask(history, query.situation.location, query.situation.moment, novel=query.novel)
    return query._replace(
        profile=fresh.profile,
        history=history,
        local=fresh.local,
        session=fresh.session,
        meant=fresh.meant,
        bought_together=fresh.bought_together,
    )


def again(query: RankingQuery) -> RankingQuery:
    """The same question to a profile that remembers nothing."""
    return same_but(query, History(query.history.events_E, np.zeros(0, np.int32), ()))


def rows_of(source: Source, query: RankingQuery) -> list[int]:
    return sorted(source.propose(query).tolist())


def test_every_source_is_there_in_the_order_of_its_name():
    assert tuple(ALL) == SOURCES == get_args(SourceName)


@pytest.mark.parametrize("name", SOURCES)
def test_only_eligible_rows_are_proposed_each_once(name: SourceName):
    proposed = 0
    for seed in range(200):
        query = draw(seed)
        found = ALL[name].propose(query)
        assert found.dtype == np.int64
        assert len(set(found.tolist())) == len(found)
        assert set(found.tolist()) <= set(query.eligible.rows_N.tolist())
        proposed += len(found)
    assert proposed


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_question_gets_the_same_answer(name: SourceName):
    for seed in range(100):
        query = draw(seed)
        first = rows_of(ALL[name], query)
        assert rows_of(ALL[name], query) == first
        assert rows_of(ALL[name], again(query)) == first


@pytest.mark.parametrize("name", SOURCES)
def test_what_was_asked_before_changes_nothing(name: SourceName, monkeypatch: pytest.MonkeyPatch):
    for module_number in ("_AGAIN", "_ALSO_BOUGHT"):
        monkeypatch.setattr(proposing, module_number, 2)
    query = draw(5)
    for location in (-1, 0, 1):
        for novel in (False, True):
            for rows in (range(N), range(0, N, 2), range(5)):
                one = ask(
                    past(("purchase", 1, 3, 0), ("purchase", 2, 2, 1), ("purchase", 7, 1, 0)), location, rows=rows
                )
                local = query.profile.at(location)
                one = one._replace(profile=query.profile, history=query.history, local=local, novel=novel, session=None)
                assert rows_of(ALL[name], one) == rows_of(ALL[name], again(one)._replace(session=None))


@pytest.mark.parametrize("name", SILENT_WITHOUT_A_PAST)
def test_who_has_no_past_is_told_nothing_of_it(name: SourceName):
    assert rows_of(ALL[name], ask(past())) == []


@pytest.mark.parametrize("name", SOURCES)
def test_of_nothing_eligible_nothing_is_proposed(name: SourceName):
    bought = past(("purchase", 1, 3, 0), ("purchase", 1, 2, 0), ("view", 2, HOUR, 0))
    assert rows_of(ALL[name], ask(bought, rows=[])) == []


def test_towers_propose_what_was_retrieved_without_pads():
    assert rows_of(ALL["towers"], ask(past(), retrieved=[5, 2, 7])) == [2, 5, 7]
    assert rows_of(ALL["towers"], ask(past(), retrieved=[5, 2, -1, -1])) == [2, 5]


def test_trending_are_the_most_popular(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proposing, "_TRENDING", 2)
    monkeypatch.setattr(proposing, "MORE", 3)
    popular = [7, 3, 1, 0, 2, 9, 4, 5, 6, 8]
    assert rows_of(ALL["trending"], ask(past(), popular=popular)) == [3, 7]
    assert rows_of(ALL["trending"], ask(past(), popular=popular, novel=True)) == [0, 1, 2, 3, 7, 9]
    many = ask(past(), popular=popular)._replace(more=times_more(FEW + 1, novel=False))
    assert rows_of(ALL["trending"], many) == [0, 1, 2, 3, 7, 9]


def test_what_is_bought_more_often_lately_and_here_is_bought_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proposing, "_AGAIN", 1)
    often = past(("purchase", 1, 9, 0), ("purchase", 1, 2, 0), ("purchase", 2, 0, 0))
    assert rows_of(BuyAgain(), ask(often)) == [1]
    lately = past(("purchase", 1, 300, 0), ("purchase", 2, 0, 0))
    assert rows_of(BuyAgain(), ask(lately)) == [2]
    here = past(("purchase", 1, 1, 0), ("purchase", 2, 0, 1))
    assert rows_of(BuyAgain(), ask(here, location=0)) == [1]
    assert rows_of(BuyAgain(), ask(here, location=1)) == [2]
    assert rows_of(BuyAgain(), ask(here)) == [2]


def test_what_is_as_likely_is_bought_again_in_the_order_of_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proposing, "_AGAIN", 3)
    basket = past(*(("purchase", row, 1, 0) for row in (8, 3, 5, 1, 9)))
    assert rows_of(BuyAgain(), ask(basket)) == [1, 3, 5]


def test_due_is_what_was_bought_on_several_days_when_its_usual_gap_has_passed(monkeypatch: pytest.MonkeyPatch):
    weekly = [("purchase", 1, 7.0 * week, 0) for week in range(1, 30)]
    monthly = [("purchase", 2, 3 + 30.0 * month, 0) for month in range(7)]
    once = [("purchase", 3, 20, 0)]
    history = past(*weekly, *monthly, *once)
    assert rows_of(DueNow(), ask(history)) == [1, 2]
    monkeypatch.setattr(proposing, "_DUE", 1)
    # A week since the weekly, three days since the monthly one.
    assert rows_of(DueNow(), ask(history)) == [1]
    # Much later, when the weekly one is long overdue and the monthly one just due.
    assert rows_of(DueNow(), ask(history, moment=NOW + 45 * DAY)) == [2]


def test_due_is_what_the_formula_of_the_bump_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proposing, "_DUE", 2)
    for seed in range(100):
        query = draw(seed)._replace(more=1)
        profile = query.profile
        weights: dict[int, float] = {}
        for row, own in zip(profile.rows_R.tolist(), profile.own_RC.tolist(), strict=False):
            figures = dict(zip(OWN, own, strict=True))
            if figures["days"] > 1 and row in query.eligible.rows_N:
                passed = figures["since"] + (query.situation.moment - profile.newest) / DAY
                weights[row] = figures["slow"] * float(
                    np.exp(-2 * np.log(max(passed / max(figures["gap"], 0.5), 0.01)) ** 2)
                )
        least = sorted(weights.values(), reverse=True)[:2]
        found = rows_of(DueNow(), query)
        assert [weights[row] for row in sorted(found, key=lambda row: -weights[row])] == pytest.approx(least)


def test_alike_are_neighbours_of_what_was_bought():
    near = {other for row in (2, 7) for other, _ in ALIKE[row]}
    assert rows_of(ALL["also_bought"], ask(past(("purchase", 2, 3, 0), ("purchase", 7, 1, 0)))) == sorted(near)


def test_together_are_neighbours_of_the_basket_and_what_was_looked_at():
    history = past(("add_to_cart", 2, HOUR, 0), ("view", 4, HOUR, 0), ("purchase", 8, 5, 0))
    near = {other for row in (2, 4) for other, _ in TOGETHER[row]}
    assert rows_of(ALL["bought_together"], ask(history)) == sorted(near | {4})
    rows = [one for one in range(N) if one != 4]
    assert rows_of(ALL["bought_together"], ask(history, rows=rows)) == sorted(near - {4})


def test_after_the_session_nothing_goes_together_any_more():
    history = past(("add_to_cart", 2, HOUR, 0), ("view", 4, HOUR, 0))
    assert rows_of(ALL["bought_together"], ask(history, moment=NOW + DAY)) == []


# All together


def named(query: RankingQuery, names: tuple[SourceName, ...] = SOURCES, least: int = 0) -> dict[int, str]:
    found = propose(query, [ALL[name] for name in names], least)
    assert found.rows_K.tolist() == sorted(set(found.rows_K.tolist()))
    return {
        row: [*names, "after"][source]
        for row, source in zip(found.rows_K.tolist(), found.sources_K.tolist(), strict=True)
    }


def test_a_candidate_carries_the_name_of_the_first_source_that_proposed_it():
    for seed in range(200):
        query = draw(seed)
        expected: dict[int, str] = {}
        for name in SOURCES:
            for row in ALL[name].propose(query).tolist():
                expected.setdefault(row, name)
        assert named(query) == expected


def test_each_name_is_given_where_it_is_the_most_telling():
    history = past(
        *(("purchase", 1, 7.0 * week, 0) for week in range(1, 9)), ("purchase", 2, 7, 0), ("view", 4, HOUR, 0)
    )
    query = ask(history, retrieved=[1, 2, 3, 6], popular=[1, 2, 3, 4, 6, 9])
    found = named(query)
    assert found[1] == "due_now"
    assert found[2] == "buy_again"
    assert found[4] == "bought_together"
    assert found[3] == "also_bought"
    assert {3, 4} <= {other for row in (1, 2) for other, _ in ALIKE[row]}
    assert found[9] == "trending"
    assert named(query, ("towers", "trending")) == dict.fromkeys([1, 2, 3, 6], "towers") | dict.fromkeys(
        [4, 9], "trending"
    )


def test_where_sources_propose_too_little_what_is_popular_follows():
    bought = past(("purchase", 1, 3, 0), ("purchase", 2, 1, 0))
    query = ask(bought, popular=[2, 9, 1, 8, 7, 3, 0, 4, 5, 6])
    assert named(query, ("buy_again",), least=2) == {1: "buy_again", 2: "buy_again"}
    found = named(query, ("buy_again",), least=4)
    assert len(found) >= 4
    assert {9, 8} <= set(found)
    assert {row for row, name in found.items() if name == "buy_again"} == {1, 2}
    assert set(named(query, ("buy_again",), least=N)) == set(range(N))
    assert set(named(query, ("buy_again",), least=50)) == set(range(N))


@pytest.mark.parametrize("least", range(N + 1))
def test_there_are_as_many_as_asked_for_wherever_that_many_are_eligible(least: int):
    for seed in range(100):
        query = draw(seed)
        assert len(named(query, least=least)) >= min(least, len(query.eligible.rows_N))


def test_where_the_whole_set_is_to_be_ranked_all_of_it_is():
    query = ask(past(("purchase", 1, 3, 0)), rows=[0, 1, 5, 6], rank_all=True, popular=[])
    assert named(query, ("buy_again",)) == {0: "after", 1: "buy_again", 5: "after", 6: "after"}
