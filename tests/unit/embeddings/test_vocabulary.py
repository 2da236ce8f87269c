from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.arrays import load_arrays, save_arrays
from embeddings.vocabulary import Vocabulary

IDS = st.lists(st.text(max_size=6), unique=True, max_size=30)
UNICODE = ["p1", "", "Zürich", "日本", "🍎", "e\u0301", "\u00e9", "a\x00b", "x" * 300]


@given(IDS)
def test_every_id_is_found_at_its_place_and_given_back(ids: list[str]):
    vocabulary = Vocabulary.of(ids)
    assert len(vocabulary) == len(ids)
    assert [vocabulary.row(one) for one in ids] == list(range(len(ids)))
    assert vocabulary.ids() == ids
    assert all(one in vocabulary for one in ids)


@given(IDS, st.text(max_size=6))
def test_an_id_that_is_not_held_has_no_row(ids: list[str], other: str):
    assert (Vocabulary.of(ids).row(other) is None) == (other not in ids)


def test_ids_come_in_the_order_asked_for():
    assert Vocabulary.of(["b", "c", "a"]).ids([2, 0, 0]) == ["a", "b", "b"]


def test_ids_that_only_look_alike_are_told_apart():
    vocabulary = Vocabulary.of(UNICODE)
    assert [vocabulary.row(one) for one in UNICODE] == list(range(len(UNICODE)))
    assert vocabulary.row("zürich") is None
    assert vocabulary.row("a") is None


def test_an_empty_vocabulary_holds_nothing():
    vocabulary = Vocabulary.of([])
    assert len(vocabulary) == 0
    assert vocabulary.ids() == []
    assert vocabulary.row("") is None


def test_an_id_given_twice_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary.of(["a", "b", "a"])


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_outside_the_vocabulary_is_refused(row: int):
    with pytest.raises(IndexError):
        Vocabulary.of(["a", "b"]).id(row)


@pytest.mark.parametrize("buckets", [1, 2])
def test_ids_of_equal_hash_are_not_confused(buckets: int, monkeypatch: pytest.MonkeyPatch):
    def collide(encoded: bytes) -> bytes:
        return (2**64 - 1 - len(encoded) % buckets).to_bytes(8, "little")

    monkeypatch.setattr("embeddings.vocabulary._digest", collide)
    ids = [f"p{number}" for number in range(120)]
    vocabulary = Vocabulary.of(ids)
    assert [vocabulary.row(one) for one in ids] == list(range(120))
    assert vocabulary.rows(["p120", *ids, "p"]).tolist() == [-1, *range(120), -1]
    assert vocabulary.row("p120") is None
    assert vocabulary.row("p") is None


@pytest.mark.parametrize("ids", [UNICODE, []], ids=["some", "none"])
def test_a_vocabulary_works_from_a_memory_map(ids: list[str], tmp_path: Path):
    save_arrays(tmp_path, Vocabulary.of(ids).arrays())
    arrays = load_arrays(tmp_path)
    assert all(isinstance(array.base, np.memmap) and not array.flags.writeable for array in arrays.values())
    again = Vocabulary(arrays)
    assert again.ids() == ids
    assert [again.row(one) for one in ids] == list(range(len(ids)))
    assert again.row("absent") is None


@given(IDS, st.lists(st.text(max_size=6), max_size=30))
def test_several_at_once_are_found_as_one_by_one(ids: list[str], others: list[str]):
    vocabulary = Vocabulary.of(ids)
    asked = [one for pair in zip(ids, others, strict=False) for one in pair]
    assert vocabulary.rows(asked).tolist() == [ids.index(one) if one in ids else -1 for one in asked]


@given(IDS, IDS)
def test_an_extended_vocabulary_is_that_of_all_ids(ids: list[str], more: list[str]):
    first = Vocabulary.of(ids).extended(more[:2])
    found, expected = first.extended([*more, *more]), Vocabulary.of(list(dict.fromkeys([*ids, *more])))
    assert (len(found), found.ids()) == (len(expected), expected.ids())
    asked = [*more, *ids, "nobody's"]
    assert found.rows(asked).tolist() == expected.rows(asked).tolist()
    assert [found.row(one) for one in asked] == [expected.row(one) for one in asked]
    assert {name: array.tolist() for name, array in found.arrays().items()} == {
        name: array.tolist() for name, array in expected.arrays().items()
    }
    assert found.extends(first)
    assert first.extends(found) == (first.ids() == found.ids())
    assert not found.extends(Vocabulary.of(ids))
