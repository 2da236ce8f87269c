"""The quality suite's baselines, on purchases small enough to follow."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.baselines import Personal, Popular, TifuKnn, answers, top
from benchmarks.quality.past import Past

START = datetime(2017, 1, 1, tzinfo=UTC)


def receipts(baskets: dict[str, list[list[int]]]) -> pl.DataFrame:
    """Lines, a basket a day, the households' baskets in the given order."""
    return pl.DataFrame(
        [
            {
                "household_id": household,
                "product_id": str(product),
                "basket_id": 1000 * int(household) + day,
                "at": START + timedelta(days=day),
            }
            for household, theirs in baskets.items()
            for day, basket in enumerate(theirs)
            for product in basket
        ]
    )


def drawn(seed: int) -> dict[str, list[list[int]]]:
    random = np.random.default_rng(seed)
    return {
        str(household): [
            random.choice(np.arange(1, 9), random.integers(1, 5), replace=False).tolist()
            for _ in range(random.integers(1, 9))
        ]
        for household in range(1, 8)
    }


def slow_tifu(
    baskets: dict[str, list[list[int]]], household: str, neighbours: int, group: int, within: float, across: float
) -> dict[int, float]:
    """The paper's formulas, one after the other, with dictionaries; the own share is 0.7."""
    vectors: dict[str, Counter[int]] = {}
    for one, theirs in baskets.items():
        backwards = theirs[::-1]
        groups = [backwards[start : start + group][::-1] for start in range(0, len(theirs), group)][::-1]
        vectors[one] = Counter()
        for place, some in enumerate(groups):
            for number, basket in enumerate(some):
                for product in set(basket):
                    of_basket = within ** (len(some) - 1 - number) / len(some)
                    vectors[one][product] += across ** (len(groups) - 1 - place) * of_basket / len(groups)  # type: ignore[assignment]
    own = vectors[household]
    products = {product for vector in vectors.values() for product in vector}

    def distance(other: str) -> float:
        return sum((own[product] - vectors[other][product]) ** 2 for product in products)

    nearest = sorted((one for one in vectors if one != household), key=distance)[:neighbours]
    return {
        product: 0.7 * own[product] + 0.3 * sum(vectors[one][product] for one in nearest) / len(nearest)
        for product in products
    }


@pytest.mark.parametrize("seed", range(5))
def test_tifu_knn_equals_the_formulas_written_out(seed: int):
    baskets = drawn(seed)
    past = Past.of(receipts(baskets))
    fitted = TifuKnn(past, neighbours=2, group=3, basket_decay=0.9, group_decay=0.6, own=0.7)
    rows = np.arange(len(past.household_rows))
    for household, row in past.household_rows.items():
        expected = slow_tifu(baskets, household, 2, 3, 0.9, 0.6)
        scores_P = fitted.scores(rows)[row]
        assert {product: scores_P[past.product_columns[str(product)]] for product in expected} == pytest.approx(
            expected
        )


def test_one_basket_is_its_own_frequencies():
    past = Past.of(receipts({"1": [[3, 5]], "2": [[4]]}))
    scores_P = TifuKnn(past, own=1.0).scores(np.array([0]))[0]
    assert dict(zip(past.products, scores_P.tolist(), strict=True)) == {"3": 1.0, "4": 0.0, "5": 1.0}


def test_answers_are_filled_with_what_is_popular():
    past = Past.of(receipts({"1": [[3], [3, 9]], "2": [[20], [20], [9, 20]]}))
    answered = answers(Personal(past), past, ["1", "2", "stranger"], 3)
    assert answered == {"1": ["3", "9", "20"], "2": ["20", "9", "3"], "stranger": ["20", "3", "9"]}


def test_novel_answers_hold_nothing_bought_before():
    past = Past.of(receipts({"1": [[3], [3, 9]], "2": [[20], [20], [7, 20]]}))
    assert answers(Popular(past), past, ["1"], 2, novel=True) == {"1": ["20", "7"]}


def test_ties_are_broken_by_the_lower_product():
    assert top(np.array([1.0, 2.0, 2.0, 0.0, 2.0]), 2).tolist() == [1, 2]
    assert top(np.array([1.0, 1.0]), 5).tolist() == [0, 1]
