"""Filters by attributes and price, against a loop over the products."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.catalogue.columns import Attributes, Products
from embeddings.catalogue.filters import Filters, PriceRange, key_of, matching
from embeddings.errors import InvalidInput
from embeddings.vocabulary import Vocabulary

LABELS = (("ALE", "BREAD", "CHEESE"), ("own", "other"))


def products(codes: list[tuple[int, int]], prices: list[float | None]) -> Products:
    return Products(
        Vocabulary.of([f"p{row}" for row in range(len(codes))]),
        Attributes(("category", "brand"), LABELS, np.array(codes, np.int32).reshape(-1, 2)),
        np.array([np.nan if one is None else one for one in prices]),
        np.ones(len(codes), np.bool_),
    )


ROW = st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([None, 0.0, 1.5, 2.0, 9.0]))
SOME = st.lists(st.sampled_from(["ALE", "BREAD", "CHEESE", "own", "other", "none"]), min_size=1, max_size=3).map(tuple)
PRICES = st.builds(PriceRange, least=st.sampled_from([None, 0.0, 1.5]), most=st.sampled_from([None, 1.5, 2.0]))
FILTERS = st.fixed_dictionaries({}, optional={"category": SOME, "brand": SOME, "price": PRICES})


@given(st.lists(ROW, max_size=12), FILTERS)
def test_filters_want_what_a_loop_wants(rows: list[tuple[int, int, float | None]], filters: dict[str, object]):
    def wants(category: int, brand: int, price: float | None) -> bool:
        for name, wanted in filters.items():
            if isinstance(wanted, PriceRange):
                if price is None or price < (wanted.least or 0) or price > (wanted.most or 99):
                    return False
                continue
            place = ("category", "brand").index(name)
            code = (category, brand)[place]
            if not code or LABELS[place][code - 1] not in wanted:  # pyright: ignore[reportOperatorIssue]
                return False
        return True

    some = products([(category, brand) for category, brand, _ in rows], [price for *_, price in rows])
    found = matching(some, filters)  # pyright: ignore[reportArgumentType]
    assert found.tolist() == [place for place, row in enumerate(rows) if wants(*row)]


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"colour": ("red",)}, "filters.colour"),
        ({"price": ("cheap",)}, "filters.price"),
        ({"brand": PriceRange(least=1)}, "filters.brand"),
        ({"price": PriceRange(least=2, most=1)}, "filters.price.max"),
    ],
)
def test_filters_that_mean_nothing_are_refused(filters: dict[str, tuple[str, ...] | PriceRange], field: str):
    with pytest.raises(InvalidInput) as refused:
        matching(products([(1, 1)], [1.0]), filters)
    assert refused.value.field == field


def test_filters_that_mean_the_same_have_one_key():
    one, other = (
        msgspec.json.decode(text, type=Filters)
        for text in (
            b'{"price": {"max": 2}, "brand": ["own", "other"]}',
            b'{"brand": ["other", "own", "own"], "price": {"max": 2.0}}',
        )
    )
    assert key_of(one) == key_of(other)
    assert key_of(one) != key_of({**one, "price": PriceRange(least=2)})
