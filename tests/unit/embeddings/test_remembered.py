"""What is remembered stays within its bound, whatever keys are made of: measured, not only counted."""

import gc
import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import SOLD, Catalogue, ChannelRule
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.remembered import Remembered, bytes_of
from embeddings.vocabulary import Vocabulary
from serving.popular import PopularRankings
from tests.unit.embeddings.small import catalogue, observed

LOCATIONS = 457
CARRIED = Ragged.of([[row % 10] for row in range(LOCATIONS)])


def test_the_least_recently_used_is_forgotten():
    of_one = bytes_of("a") + bytes_of(1)
    held: Remembered[int] = Remembered(3 * of_one + 700)
    for value, key in enumerate("abc"):
        assert held.find(key) is None
        assert held.keep(key, value) == value
    assert held.find("a") == 0
    held.keep("d", 3)
    assert [held.find(key) for key in "abcd"] == [0, None, 2, 3]


def test_a_value_in_place_of_another_is_counted_once():
    held: Remembered[bytes] = Remembered(10_000)
    held.keep("a", b"x" * 100)
    before = held.bytes
    held.keep("a", b"x" * 300)
    assert (len(held), held.bytes, held.find("a")) == (1, before + 200, b"x" * 300)


def test_the_last_value_is_held_however_large():
    held: Remembered[bytes] = Remembered(1_000)
    held.keep("a", b"x")
    held.keep("b", b"x" * 5_000)
    assert (len(held), held.find("b")) == (1, b"x" * 5_000)
    held.keep("c", b"y")
    assert (len(held), held.find("c")) == (1, b"y")


def many_locations() -> Catalogue:
    """Each of them carries nearly nothing."""
    whole = catalogue()
    return whole._replace(
        channels={"store": ChannelRule.ASSORTMENT},
        locations=whole.locations._replace(
            ids=Vocabulary.of([f"l{row}" for row in range(LOCATIONS)]),
            assortment=CARRIED,
            why_L=np.full(LOCATIONS, SOLD, np.uint8),
            withdrawn_M=np.zeros(LOCATIONS, np.bool_),
        ),
    )


@pytest.mark.parametrize("what", ["eligible sets", "rankings"])
def test_places_of_many_locations_take_no_more_memory_than_the_bound(what: str, monkeypatch: pytest.MonkeyPatch):
    bound = 2**20
    monkeypatch.setattr("embeddings.catalogue.eligibility.REMEMBERED_BYTES", bound)
    monkeypatch.setattr("serving.popular.REMEMBERED_BYTES", bound)
    eligibility, rankings = Eligibility(many_locations()), PopularRankings()
    everywhere = eligibility.products(Context("store"), Place(None), 0)
    seen = observed()._replace(sold=CARRIED, popularity_L=np.ones(LOCATIONS, np.float32))
    pairs = combinations(range(LOCATIONS), 2)
    tracemalloc.start()
    try:
        for _ in range(600):  # a key of hundreds of numbers each, of which CPython shares only the small ones
            without = set(next(pairs))
            place = Place(tuple(int(str(row)) for row in range(LOCATIONS) if row not in without))
            if what == "rankings":
                rankings.of(seen, everywhere, place.rows or ())
            else:
                eligibility.products(Context("store"), place, 0)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.3 * bound
