from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import InvalidInput
from embeddings.index.cache import SetCache


@dataclass(frozen=True)
class Value:
    nbytes: int


class Built:
    """Builds values that are not held and remembers for which fingerprints."""

    def __init__(self, cache: SetCache[Value]) -> None:
        self.cache = cache
        self.names: list[str] = []

    def get(self, name: str, nbytes: int = 10) -> Value:
        value = self.cache.find(name.encode())
        if value is None:
            self.names.append(name)
            value = Value(nbytes)
            self.cache.keep(name.encode(), value)
        return value


def test_a_value_is_built_once_and_found_after():
    built = Built(SetCache[Value](30))
    assert built.get("a") is built.get("a")
    assert built.names == ["a"]
    assert (built.cache.hits, built.cache.misses, built.cache.bytes, len(built.cache)) == (1, 1, 10, 1)


def test_the_least_recently_used_goes_first():
    built = Built(SetCache[Value](30))
    for name in "abcadbacd":
        built.get(name)
    # a b c fill it; a is found; d drops b; b drops c; a is found; c drops d; d drops b.
    assert "".join(built.names) == "abcdbcd"
    assert (built.cache.hits, built.cache.misses, built.cache.evicted) == (2, 7, 4)
    assert (built.cache.bytes, len(built.cache)) == (30, 3)


def test_as_many_go_as_the_new_one_needs():
    built = Built(SetCache[Value](30))
    for name in "abc":
        built.get(name)
    built.get("large", 25)
    assert (built.cache.evicted, built.cache.bytes, len(built.cache)) == (3, 25, 1)


def test_a_value_larger_than_the_bound_is_used_and_drops_nothing():
    built = Built(SetCache[Value](30))
    built.get("a")
    for _ in range(2):
        assert built.get("huge", 31).nbytes == 31
    assert built.names == ["a", "huge", "huge"]
    assert (built.cache.oversize, built.cache.evicted, built.cache.bytes) == (2, 0, 10)


def test_a_bound_of_zero_keeps_nothing():
    built = Built(SetCache[Value](0))
    built.get("a")
    assert (built.cache.bytes, len(built.cache), built.cache.oversize) == (0, 0, 1)


def test_a_value_takes_the_place_of_the_one_before():
    built = Built(SetCache[Value](30))
    for name in "ab":
        built.get(name)
    built.cache.keep(b"a", Value(20))
    assert (built.cache.bytes, len(built.cache), built.cache.evicted) == (30, 2, 0)
    built.cache.keep(b"a", Value(31))
    assert (built.cache.bytes, len(built.cache), built.cache.oversize) == (10, 1, 1)


def test_what_is_cleared_is_not_found():
    built = Built(SetCache[Value](30))
    built.get("a")
    built.cache.clear()
    assert (built.cache.find(b"a"), built.cache.bytes, len(built.cache)) == (None, 0, 0)


def test_a_negative_bound_is_refused():
    with pytest.raises(InvalidInput, match="cache_bytes"):
        SetCache[Value](-1)


@given(st.integers(0, 60), st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 40))))
def test_the_bound_holds_whatever_is_asked(limit: int, asked: list[tuple[str, int]]):
    sizes = dict(asked)
    built = Built(SetCache[Value](limit))
    for name, _ in asked:
        assert built.get(name, sizes[name]).nbytes == sizes[name]
        assert 0 <= built.cache.bytes <= limit
    assert built.cache.hits + built.cache.misses == len(asked)
    assert len(built.names) == built.cache.misses
    assert len(built.cache) == built.cache.misses - built.cache.evicted - built.cache.oversize
