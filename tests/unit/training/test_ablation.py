"""What sources and groups of features are worth."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.sources import ALL, RankingQuery, Source
from training import ablation
from training.ablation import ablate, group_of
from training.candidates import ExampleCandidates, QueriedExample
from training.examples import Example

OWN, DAYS, AWAY = (RANKER_FEATURES.index(name) for name in ("own_times", "own_days", "away"))
LISTS, SIZE = 60, 12


class Proposing:
    """Proposes the rows that the example keeps for it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def propose(self, query: RankingQuery) -> NDArray[np.int64]:
        return cast("SimpleNamespace", query).proposed.get(self._name, np.zeros(0, np.int64))


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> tuple[ExampleCandidates, list[QueriedExample]]:
    """Lists in which the candidate of the largest `own_times` is taken; half of these only one source proposes."""
    sources = {name: cast("Source", Proposing(name)) for name in ALL}
    monkeypatch.setattr(ablation, "ALL", sources)
    random = np.random.default_rng(0)
    features_MF = random.random((LISTS * SIZE, len(RANKER_FEATURES))).astype(np.float32)
    features_MF[:, AWAY] = np.repeat(np.arange(LISTS), SIZE)
    best_Q = features_MF[:, OWN].reshape(LISTS, SIZE).argmax(axis=1)
    rows_M = np.tile(np.arange(SIZE), LISTS)
    queried = []
    for number, best in enumerate(best_Q.tolist()):
        others = np.array([row for row in range(SIZE) if row != best])
        proposed = {
            "towers": np.arange(SIZE),
            "buy_again": others if number % 2 else np.arange(SIZE),
            "trending": others,
        }
        if number % 2:
            proposed["due_now"] = np.array([best])
            proposed["towers"] = others
        example = cast("Example", SimpleNamespace(bought=frozenset({best})))
        query = cast("RankingQuery", SimpleNamespace(proposed=proposed))
        queried.append(QueriedExample(example, query, np.zeros(1, np.float32), np.zeros(1, np.float32)))
    taken_M = (rows_M == np.repeat(best_Q, SIZE)).astype(np.float32)
    offsets_Q = np.arange(0, LISTS * SIZE + 1, SIZE)
    return ExampleCandidates(features_MF, taken_M, rows_M, np.ones(len(rows_M), np.bool_), offsets_Q), queried


def test_every_feature_is_of_one_group() -> None:
    groups = {group_of(name) for name in RANKER_FEATURES}
    assert {"own_purchases", "types", "categories", "makers", "popularity", "place", "prices", "hazards"} <= groups
    for group, named in ablation._NAMED.items():  # pyright: ignore[reportPrivateUsage]
        assert set(named) <= set(RANKER_FEATURES), group


def test_what_decides_is_worth_something_and_nothing_else_is(
    lists: tuple[ExampleCandidates, list[QueriedExample]],
) -> None:
    candidates, queried = lists
    found = ablate(candidates, queried, lambda features_MF: features_MF[:, OWN], 1)
    worth = {name: values["worth"] for name, values in found.items() if name.startswith("without features")}
    assert worth.pop("without features own_purchases") > 0.3
    assert set(worth.values()) == {0.0}
    # Half of what is taken only `due_now` proposes.
    sources = {name.removeprefix("without source "): values for name, values in found.items() if "source" in name}
    assert sources.pop("due_now") == {"ndcg@10": 0.5, "worth": 0.5}
    assert {values["worth"] for values in sources.values()} == {0.0}
    assert set(sources) == set(ALL) - {"due_now"}


def test_what_a_whole_list_shares_is_taken_from_another_list(
    lists: tuple[ExampleCandidates, list[QueriedExample]],
) -> None:
    candidates, queried = lists
    seen: list[NDArray[np.float32]] = []

    def noted(features_MF: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(features_MF)
        return features_MF[:, OWN]

    ablate(candidates, queried, noted, 1)
    (moved_MF,) = (one for one in seen[1:] if not np.array_equal(one[:, AWAY], candidates.features_MF[:, AWAY]))
    lists_QK = moved_MF[:, AWAY].reshape(LISTS, SIZE)
    assert (lists_QK == lists_QK[:, :1]).all()
    assert sorted(lists_QK[:, 0]) == list(range(LISTS))
    shuffled = next(one for one in seen[1:] if not np.array_equal(one[:, OWN], candidates.features_MF[:, OWN]))
    assert sorted(shuffled[:, OWN]) == sorted(candidates.features_MF[:, OWN])
    assert not np.array_equal(shuffled[:, DAYS], candidates.features_MF[:, DAYS])
