"""Baselines that a user would try first: each scores every product for every household, from the past alone.

Shapes: B households asked at once, F factors, H households, K products answered, N neighbours, P products.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from threadpoolctl import threadpool_limits

from benchmarks.quality.past import Past

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

ALS_FACTORS, ALS_ITERATIONS, ALS_REGULARISATION = 64, 10, 0.05
ITEM_NEIGHBOURS = 100
TIFU_NEIGHBOURS, TIFU_GROUP = 300, 7
TIFU_BASKET_DECAY, TIFU_GROUP_DECAY, TIFU_OWN = 0.9, 0.7, 0.7
_AT_ONCE = 128


class Baseline(Protocol):
    """A way to rank products."""

    def scores(self, rows_B: I64) -> F64:
        """Score every product for some households of the past, the higher the better, (B, P); 0 where it has no say."""
        ...


class Popular:
    """Scores by lines of receipts, everybody's."""

    def __init__(self, past: Past) -> None:
        self._lines_P = np.asarray(past.lines_HP.sum(axis=0), np.float64).ravel()

    def scores(self, rows_B: I64) -> F64:
        """Return the same scores for every household."""
        return np.broadcast_to(self._lines_P, (len(rows_B), len(self._lines_P)))


class Personal:
    """Scores by lines of the household's own receipts."""

    def __init__(self, past: Past) -> None:
        self._lines_HP = past.lines_HP

    def scores(self, rows_B: I64) -> F64:
        """Return the numbers of lines."""
        return self._lines_HP[rows_B].toarray()


class TifuKnn:
    """TIFU-KNN (Hu, He, Gao and Zhang, "Modeling Personalized Item Frequency Information", SIGIR 2020).

    A household is the mean of its groups of baskets, a group the mean of its baskets, both decayed from the newest
    backwards; its score is a mix of its own vector and the mean of its nearest households' by Euclidean distance.
    """

    def __init__(
        self,
        past: Past,
        *,
        neighbours: int = TIFU_NEIGHBOURS,
        group: int = TIFU_GROUP,
        basket_decay: float = TIFU_BASKET_DECAY,
        group_decay: float = TIFU_GROUP_DECAY,
        own: float = TIFU_OWN,
    ) -> None:
        vectors = [
            _frequencies(baskets, len(past.products), group, basket_decay, group_decay) for baskets in past.baskets
        ]
        self._vectors_HP = csr_matrix(vstack(vectors))
        self._squares_H = np.asarray(self._vectors_HP.multiply(self._vectors_HP).sum(axis=1)).ravel()
        self._neighbours = min(neighbours, len(vectors) - 1)
        self._own = own

    def scores(self, rows_B: I64) -> F64:
        """Return the mixed vectors."""
        own_BP = self._vectors_HP[rows_B]
        # The own square is the same for all others, so the order needs no more than this.
        distances_BH = self._squares_H - 2 * (own_BP @ self._vectors_HP.T).toarray()
        distances_BH[np.arange(len(rows_B)), rows_B] = np.inf
        nearest_BN = np.argpartition(distances_BH, self._neighbours - 1, axis=1)[:, : self._neighbours]
        picked_BH = csr_matrix(
            (
                np.full(nearest_BN.size, 1 / self._neighbours),
                nearest_BN.ravel(),
                np.arange(len(rows_B) + 1) * self._neighbours,
            ),
            shape=(len(rows_B), len(self._squares_H)),
        )
        return (self._own * own_BP + (1 - self._own) * (picked_BH @ self._vectors_HP)).toarray()


class Als:
    """Matrix factorisation of line counts (Hu, Koren and Volinsky, 2008), as implicit has it."""

    def __init__(self, past: Past) -> None:
        model = AlternatingLeastSquares(
            factors=ALS_FACTORS,
            regularization=ALS_REGULARISATION,
            iterations=ALS_ITERATIONS,
            use_gpu=False,
            random_state=0,
        )
        with threadpool_limits(1, "blas"):  # implicit brings threads of its own; BLAS' would only get in their way
            model.fit(past.lines_HP.astype(np.float32), show_progress=False)
        self._households_HF = np.asarray(model.user_factors, np.float64)
        self._products_PF = np.asarray(model.item_factors, np.float64)

    def scores(self, rows_B: I64) -> F64:
        """Return the inner products of factors."""
        return self._households_HF[rows_B] @ self._products_PF.T


class ItemKnn:
    """Scores by the cosine to what the household bought; each product has its nearest ones only, as in implicit."""

    def __init__(self, past: Past) -> None:
        model = CosineRecommender(K=ITEM_NEIGHBOURS)
        with warnings.catch_warnings():  # about a conversion that implicit itself makes necessary
            warnings.simplefilter("ignore", ParameterWarning)
            model.fit(past.lines_HP, show_progress=False)
        self._lines_HP = past.lines_HP
        self._similarity_PP = csr_matrix(model.similarity)

    def scores(self, rows_B: I64) -> F64:
        """Return the sums of cosines, weighted by lines."""
        return (self._lines_HP[rows_B] @ self._similarity_PP).toarray()


def answers(
    baseline: Baseline, past: Past, households: Sequence[str], k: int, *, novel: bool = False
) -> dict[str, list[str]]:
    """Return the best ``k`` products for each household, ties by the lower id.

    Where the baseline has no say, popular products follow.

    Args:
        baseline: fitted on the past.
        past: the past.
        households: those asked for; one without a past is answered with what is popular.
        k: how many.
        novel: leave out what the household bought before.
    """
    popular_P = Popular(past).scores(np.zeros(1, np.int64))[0]
    fill_P = popular_P / popular_P.max() - 2  # below every score that says anything
    found: dict[str, list[str]] = {}
    known = [household for household in households if household in past.household_rows]
    for start in range(0, len(known), _AT_ONCE):
        some = known[start : start + _AT_ONCE]
        rows_B = np.array([past.household_rows[household] for household in some], np.int64)
        scores_BP = baseline.scores(rows_B)
        for place, household in enumerate(some):
            highest = np.abs(scores_BP[place]).max() or 1
            scores_P = np.where(scores_BP[place] == 0, fill_P, scores_BP[place] / highest)
            if novel:
                scores_P[past.lines_HP[rows_B[place]].indices] = -np.inf
            found[household] = [past.products[column] for column in top(scores_P, k).tolist()]
    usual = most_popular(past, k)
    return {household: found.get(household, usual) for household in households}


def most_popular(past: Past, k: int) -> list[str]:
    """Return the ``k`` products on most lines."""
    return [past.products[column] for column in top(Popular(past).scores(np.zeros(1, np.int64))[0], k).tolist()]


def top(scores_P: F64, k: int) -> I64:
    """Return the columns of the ``k`` highest scores, the highest first; ties by the lower column."""
    k = min(k, len(scores_P))
    border = np.partition(scores_P, -k)[-k]
    columns = np.flatnonzero(scores_P >= border)
    return columns[np.argsort(-scores_P[columns], kind="stable")][:k]


def next_basket_baselines(past: Past) -> Mapping[str, Baseline]:
    """Return all baselines of the task, fitted, by name."""
    return {
        "popular": Popular(past),
        "personal top frequency": Personal(past),
        "TIFU-KNN": TifuKnn(past),
        "implicit ALS": Als(past),
        "item-kNN": ItemKnn(past),
    }


def _frequencies(
    baskets: Sequence[I64], products: int, group: int, basket_decay: float, group_decay: float
) -> csr_matrix:
    """Return one household's decayed frequencies, (1, P).

    Groups are of ``group`` baskets; the oldest group may be smaller.
    """
    count = len(baskets)
    back_B = count - 1 - np.arange(count)  # baskets since
    group_B = back_B // group
    groups = group_B.max() + 1
    sizes_B = np.bincount(group_B)[group_B]
    weights_B = basket_decay ** (back_B % group) / sizes_B * group_decay**group_B / groups
    columns = np.concatenate(baskets)
    weights = np.repeat(weights_B, [len(basket) for basket in baskets])
    return csr_matrix((weights, (np.zeros(len(columns), np.int64), columns)), shape=(1, products))
